//! Which vector instructions are in use, for those who report it.

/// Whether JPEGs are decoded with vector instructions: found out when this was built.
pub const JPEG_SIMD: bool = cfg!(caudal_jpeg_simd);

/// The instructions that the loops over pixels run with on this machine.
pub fn instructions() -> String {
    match pulp::Arch::new() {
        pulp::Arch::Scalar => "baseline".to_owned(),
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2".to_owned(),
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON".to_owned(),
        other => format!("{other:?}"),
    }
}
