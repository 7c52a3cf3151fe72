//! Generates Rust code from the pprof format's protobuf file.

use protobuf_codegen::{Codegen, Customize};

fn main() {
    println!("cargo::rerun-if-changed=proto/profile.proto");
    Codegen::new()
        .pure()
        .include("proto")
        .input("proto/profile.proto")
        .customize(Customize::default().lite_runtime(true))
        .cargo_out_dir("pprof")
        .run_from_script();
}
