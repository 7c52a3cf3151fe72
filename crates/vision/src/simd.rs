//! Which vector instructions are in use, for those who report it.

/// Whether JPEGs are decoded with vector instructions: found out when this was built.
pub const JPEG_SIMD: bool = cfg!(caudal_jpeg_simd);

/// The instructions that the loops over pixels run with on this machine: those that their `multiversion` attributes
/// name, where the machine has them.
pub fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return "AVX2";
    }
    if cfg!(target_arch = "aarch64") { "NEON" } else { "baseline" }
}
