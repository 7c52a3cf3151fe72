//! The providers of the library that is loaded, and how each is asked to run a session.

use std::num::NonZeroUsize;

use caudal_engine::{LoadOptions, Precision, Provider};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProvider, ExecutionProviderDispatch};

/// The providers that the library was built with.
pub(crate) fn available() -> Vec<Provider> {
    let has = |provider: &Provider| match provider {
        Provider::Cpu => Ok(true),
        Provider::OpenVino => ep::OpenVINO::is_available(),
        Provider::Cuda => ep::CUDA::is_available(),
        Provider::TensorRt => ep::TensorRT::is_available(),
        Provider::Xnnpack => ep::XNNPACK::is_available(),
    };
    Provider::ALL.into_iter().filter(|provider| has(provider).unwrap_or(false)).collect()
}

/// What is said to ONNX Runtime so that `options.provider` runs a session with `threads` threads: providers in the order
/// of preference; what the first does not know ONNX Runtime gives to the next, and at last to its own kernels.
pub(crate) fn asked(options: &LoadOptions, threads: usize) -> Vec<ExecutionProviderDispatch> {
    let asked = match options.provider {
        Provider::Cpu => vec![],
        Provider::OpenVino => vec![openvino(options.precision, threads)],
        Provider::Cuda => vec![ep::CUDA::default().build()],
        // Operators that TensorRT does not know stay on the card.
        Provider::TensorRt => vec![tensorrt(options.precision), ep::CUDA::default().build()],
        Provider::Xnnpack => {
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            vec![ep::XNNPACK::default().with_intra_op_num_threads(threads).build()]
        }
    };
    // One that does not work must not be left out without a word.
    asked.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect()
}

/// One stream of `threads` threads. Pinned threads of several sessions would all be pinned to the same cores, and to
/// cores that a quota or another process takes.
fn openvino(precision: Precision, threads: usize) -> ExecutionProviderDispatch {
    let hint = precision.name();
    let config = format!(r#"{{"CPU": {{"ENABLE_CPU_PINNING": "NO", "INFERENCE_PRECISION_HINT": "{hint}"}}}}"#);
    let provider = ep::OpenVINO::default().with_device_type("CPU").with_num_threads(threads).with_num_streams(1);
    provider.with_arbitrary_config("load_config", config).build()
}

fn tensorrt(precision: Precision) -> ExecutionProviderDispatch {
    let provider = ep::TensorRT::default();
    match precision {
        Precision::F32 => provider,
        Precision::Bf16 => provider.with_bf16(true),
        Precision::F16 => provider.with_fp16(true),
    }
    .build()
}

/// Whether instances may run one session of `provider` side by side, each run with `threads` threads. Where runs have
/// threads of their own, those are the session's and would be shared.
pub(crate) fn shares_session(provider: Provider, threads: usize) -> bool {
    match provider {
        Provider::Cpu => threads == 1,
        Provider::Cuda | Provider::TensorRt => true,
        Provider::OpenVino | Provider::Xnnpack => false,
    }
}

/// Threads of the session's own pool: those that bring their own pool want none beside it.
pub(crate) fn session_threads(provider: Provider, threads: usize) -> usize {
    if provider == Provider::Cpu { threads } else { 1 }
}
