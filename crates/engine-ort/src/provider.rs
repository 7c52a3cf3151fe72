//! Execution providers of the loaded library, and their options.

use std::num::NonZeroUsize;

use caudal_engine::{LoadOptions, Precision, Provider};
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _, ExecutionProvider, ExecutionProviderDispatch};

/// The providers of the loaded library.
pub(crate) fn available_providers() -> Vec<Provider> {
    let has = |provider: &Provider| match provider {
        Provider::Cpu => Ok(true),
        Provider::OpenVino => ep::OpenVINO::is_available(),
        Provider::Cuda => ep::CUDA::is_available(),
        Provider::TensorRt => ep::TensorRT::is_available(),
        Provider::Xnnpack => ep::XNNPACK::is_available(),
    };
    Provider::ALL.into_iter().filter(|provider| has(provider).unwrap_or(false)).collect()
}

/// The execution providers for a session with `options` and `threads` threads, in the order of preference: operators
/// that the first does not support are run by the next, and at last by ONNX Runtime's own kernels.
pub(crate) fn execution_providers(options: &LoadOptions, threads: usize) -> Vec<ExecutionProviderDispatch> {
    let asked = match options.provider {
        Provider::Cpu => vec![],
        Provider::OpenVino => vec![openvino_provider(options.precision, threads)],
        Provider::Cuda => vec![ep::CUDA::default().build()],
        // Operators that TensorRT does not support stay on the GPU.
        Provider::TensorRt => vec![tensorrt_provider(options.precision), ep::CUDA::default().build()],
        Provider::Xnnpack => {
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            vec![ep::XNNPACK::default().with_intra_op_num_threads(threads).build()]
        }
    };
    // A provider that does not work must cause an error instead of being skipped silently.
    asked.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect()
}

/// One stream of `threads` threads. Threads are not pinned, because several sessions would pin theirs to the same
/// cores, and to cores that a quota or another process takes.
fn openvino_provider(precision: Precision, threads: usize) -> ExecutionProviderDispatch {
    let hint = precision.name();
    let config = format!(r#"{{"CPU": {{"ENABLE_CPU_PINNING": "NO", "INFERENCE_PRECISION_HINT": "{hint}"}}}}"#);
    let provider = ep::OpenVINO::default().with_device_type("CPU").with_num_threads(threads).with_num_streams(1);
    provider.with_arbitrary_config("load_config", config).build()
}

fn tensorrt_provider(precision: Precision) -> ExecutionProviderDispatch {
    let provider = ep::TensorRT::default();
    match precision {
        Precision::F32 => provider,
        Precision::Bf16 => provider.with_bf16(true),
        Precision::F16 => provider.with_fp16(true),
    }
    .build()
}

/// Whether instances may run one session of `provider` concurrently, each run with `threads` threads. If runs have
/// several threads, these belong to the session and would be shared.
pub(crate) fn can_share_session(provider: Provider, threads: usize) -> bool {
    match provider {
        Provider::Cpu => threads == 1,
        Provider::Cuda | Provider::TensorRt => true,
        Provider::OpenVino | Provider::Xnnpack => false,
    }
}

/// Threads of the session's own pool; providers with their own pool need only one.
pub(crate) fn session_threads(provider: Provider, threads: usize) -> usize {
    if provider == Provider::Cpu { threads } else { 1 }
}
