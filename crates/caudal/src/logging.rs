//! Where log lines go and which are kept.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Starts logging to standard error at `level`, which may be a filter.
///
/// ONNX Runtime tells sixty lines about every model it opens; its warnings are enough.
pub(crate) fn start(level: &str, json: bool) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(format!("ort=warn,{level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}
