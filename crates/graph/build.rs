//! Makes Rust of ONNX's own description of its format.

use protobuf_codegen::{Codegen, Customize};

fn main() {
    println!("cargo::rerun-if-changed=proto/onnx.proto");
    Codegen::new()
        .pure()
        .include("proto")
        .input("proto/onnx.proto")
        .customize(Customize::default().lite_runtime(true))
        .cargo_out_dir("onnx")
        .run_from_script();
}
