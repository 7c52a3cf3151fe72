//! Variables of the systems that this one replaces which have nothing to set here. They are accepted, so that an
//! old environment still starts, and explained.

/// A variable without effect.
#[derive(Debug)]
pub(crate) struct Legacy {
    /// Its name.
    pub(crate) name: &'static str,
    /// Why there is nothing to set.
    pub(crate) why: &'static str,
    /// Values that would change what happens, and so are refused rather than ignored.
    pub(crate) refused: &'static [&'static str],
}

const fn idle(name: &'static str, why: &'static str) -> Legacy {
    Legacy { name, why, refused: &[] }
}

/// All of them.
pub(crate) const LEGACY: &[Legacy] = &[
    idle("WORKERS", "one process serves on all cores; threads follow the CPU quota"),
    idle("LIMIT_MAX_REQUESTS", "the process need not be recycled: its memory does not grow with requests"),
    idle("LIMIT_MAX_REQUESTS_JITTER", "the process need not be recycled: its memory does not grow with requests"),
    idle("UVICORN_LOOP", "there is one event loop, and it is compiled in"),
    idle("UVICORN_HTTP", "there is one HTTP parser, and it is compiled in"),
    idle("INFERENCE_PREFETCH", "the next pictures are decoded while a batch runs, as many as the queue holds"),
    idle("FLUJO_DISABLE_UVLOOP", "there is one event loop, and it is compiled in"),
    idle("FLUJO_PERF_DEBUG", "every run is timed step by step: caudal flow run --summary shows it"),
    idle("USE_ONNX", "models are ONNX files"),
    Legacy {
        name: "USE_TENSORRT",
        why: "providers: tensorrt says so, where the library that is loaded has it",
        refused: &["true", "1", "yes"],
    },
    idle("OTEL_PROPAGATORS", "callers say which trace a request belongs to by the W3C's traceparent"),
    idle("OTEL_METRIC_EXPORT_TIMEOUT", "otel_timeout_ms bounds each export"),
    idle("OTEL_LOGS_EXPORTER", "log lines go to standard error"),
    idle("OTEL_BSP_EXPORT_TIMEOUT", "otel_timeout_ms bounds each export"),
    Legacy { name: "USE_FP16", why: "a model runs in the precision that its file has", refused: &["true", "1", "yes"] },
];
