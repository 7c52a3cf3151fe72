//! Finds out whether libjpeg-turbo is built with vector instructions: on x86 they are written in assembler, and
//! its build leaves them out where there is no NASM.

use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(caudal_jpeg_simd)");
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::rerun-if-changed=build.rs");
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch.starts_with("x86"));
    let nasm = || Command::new("nasm").arg("-v").output().is_ok_and(|output| output.status.success());
    if !x86 || nasm() {
        println!("cargo::rustc-cfg=caudal_jpeg_simd");
    }
}
