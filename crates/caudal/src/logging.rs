//! Where log lines go and which are kept.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
};

use caudal_types::read_request_id;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{DefaultFields, Format, JsonFields, Writer},
    },
    registry::LookupSpan,
    reload::Handle,
};

/// Sets another filter.
static SET_FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Writes what is left when it is dropped.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Starts logging to standard error at `level`, which may be a filter as tracing reads it.
///
/// ONNX Runtime tells sixty lines about every model it opens; its warnings are enough, and so are
/// those of what carries spans. A thread of its own writes, so
/// that no request waits for whoever reads the log; when that one stops reading, lines are dropped.
pub(crate) fn start(level: &str, json: bool) -> Result<(), String> {
    let (writer, guard) = NonBlockingBuilder::default().thread_name("log").finish(std::io::stderr());
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(writer);
    let format = Format::default().with_target(false);
    if json {
        let format = Named { inner: format.json().flatten_event(true), form: Form::Json };
        let builder = builder.fmt_fields(JsonFields::new()).event_format(format).with_filter_reloading();
        remember(builder.reload_handle());
        builder.init();
    } else {
        let format = format.with_ansi(std::io::stderr().is_terminal());
        let format = Named { inner: format, form: Form::Text };
        let builder = builder.fmt_fields(OneLine).event_format(format).with_filter_reloading();
        remember(builder.reload_handle());
        builder.init();
    }
    Ok(())
}

/// Fields as text, an entry a line: what callers send can neither begin a line nor move a cursor.
struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&caudal_types::printable(&text))
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Json,
}

/// Lines that are logged on behalf of a request name it, whoever logs them.
struct Named<F> {
    inner: F,
    form: Form,
}

impl<S, N, F> FormatEvent<S, N> for Named<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        read_request_id(|id| {
            let Some(id) = id else { return self.inner.format_event(context, writer, event) };
            let mut line = String::new();
            self.inner.format_event(context, Writer::new(&mut line), event)?;
            let line = line.trim_end();
            match (self.form, line.strip_suffix('}')) {
                (Form::Json, Some(line)) => writeln!(writer, "{line},\"request_id\":{}}}", serde_json::Value::from(id)),
                _ => writeln!(writer, "{line} request_id={id:?}"),
            }
        })
    }
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("ort=warn,h2=warn,hyper_util=info,tower=info,{}", known(level)?))
        .map_err(|error| error.to_string())
}

fn remember<S: 'static>(handle: Handle<EnvFilter, S>) {
    let set = move |filter| {
        // Nobody logs any more where this fails.
        let _ = handle.reload(filter);
    };
    let _ = SET_FILTER.set(Box::new(set));
}

/// Logs at another level from now on.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    if let Some(set) = SET_FILTER.get() {
        set(filter);
    }
    Ok(())
}

/// Writes what has not been written yet. To be called before the process ends.
pub(crate) fn finish() {
    WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The level as tracing calls it. A single word that is no level would be taken for a module's name and silence all.
fn known(level: &str) -> Result<String, String> {
    let word = level.trim().to_lowercase();
    match word.as_str() {
        "warning" => Ok("warn".to_owned()),
        "critical" | "fatal" => Ok("error".to_owned()),
        "off" | "error" | "warn" | "info" | "debug" | "trace" => Ok(word),
        _ if level.contains(['=', ',']) => Ok(level.to_owned()),
        _ => Err("it is error, warn, info, debug or trace, or a filter such as caudal_server=debug".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lines_hold_no_line_breaks_or_control_characters_of_fields() {
        let said = std::sync::Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let said = std::sync::Arc::clone(&said);
            move || Said(std::sync::Arc::clone(&said))
        };
        let format = Named { inner: Format::default().with_target(false).with_ansi(false), form: Form::Text };
        let logger = tracing_subscriber::fmt().fmt_fields(OneLine).event_format(format).with_writer(writer).finish();
        tracing::subscriber::with_default(logger, || {
            let words = "a\n2026-01-01T00:00:00Z  INFO forged\r\u{1b}[2J\u{9b}\u{202e}";
            tracing::warn!(words, debug = ?words, "{words}");
        });
        let text = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end().contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{text:?}");
        assert!(text.contains(r"a\n2026") && text.contains(r"forged\r\x1b[2J\u{9b}\u{202e}"), "{text:?}");
    }

    struct Said(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn levels_are_known_by_the_names_that_people_give_them() {
        assert_eq!(known("WARNING").as_deref(), Ok("warn"));
        assert_eq!(known("Critical").as_deref(), Ok("error"));
        assert_eq!(known("debug").as_deref(), Ok("debug"));
        assert_eq!(known("info,caudal_server=trace").as_deref(), Ok("info,caudal_server=trace"));
        assert!(known("loud").is_err());
    }
}
