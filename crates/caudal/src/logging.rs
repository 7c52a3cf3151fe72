//! Where log lines go and which are kept.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
};

use caudal_types::read_request_id;
use tracing::{Event, Subscriber, field::display};
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
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        let line = match self.form {
            Form::Json => caudal_types::printable(line),
            // Fields are made printable one by one: what colours the line stays.
            Form::Text => line.into(),
        };
        read_request_id(|id| match (self.form, id, line.strip_suffix('}')) {
            (_, None, _) => writeln!(writer, "{line}"),
            (Form::Json, Some(id), Some(line)) => {
                writeln!(writer, "{line},\"request_id\":{}}}", serde_json::Value::from(id))
            }
            (_, Some(id), _) => writeln!(writer, "{line} request_id={id:?}"),
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

/// Logs panics from now on, where they would be printed else. A message that was put together is left out: it may hold what
/// a request brought. Where the panic was stands there, and in the backtrace that `RUST_BACKTRACE=1` asks for.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let words = panic.payload().downcast_ref::<&'static str>();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
        let (place, thread) = (panic.location().map(display), std::thread::current());
        tracing::error!(
            thread = thread.name(),
            place,
            backtrace,
            "panic: {}",
            words.unwrap_or(&"the message is not logged")
        );
    }));
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
    use std::sync::Arc;

    use caudal_types::with_request_id;

    use super::*;

    /// What is logged while `work` is done, in text and in JSON.
    fn logged(work: impl Fn()) -> [String; 2] {
        [Form::Text, Form::Json].map(|form| {
            let said = Arc::new(Mutex::new(Vec::new()));
            let own = Arc::clone(&said);
            let builder = tracing_subscriber::fmt().with_writer(move || Said(Arc::clone(&own)));
            let format = Format::default().with_target(false).with_ansi(false);
            match form {
                Form::Text => {
                    let format = Named { inner: format, form };
                    tracing::subscriber::with_default(builder.fmt_fields(OneLine).event_format(format).finish(), &work);
                }
                Form::Json => {
                    let format = Named { inner: format.json().flatten_event(true), form };
                    let builder = builder.fmt_fields(JsonFields::new()).event_format(format);
                    tracing::subscriber::with_default(builder.finish(), &work);
                }
            }
            String::from_utf8(said.lock().unwrap().clone()).unwrap()
        })
    }

    #[test]
    fn lines_hold_no_line_breaks_or_control_characters_of_fields() {
        let words = "a\n2026-01-01T00:00:00Z  INFO forged\r\u{1b}[2J\u{9b}\u{202e}";
        let [text, json] = logged(|| {
            with_request_id("id", || tracing::warn!(words, debug = ?words, "{words}"));
            tracing::warn!(words, debug = ?words, "{words}");
        });
        for lines in [&text, &json] {
            assert_eq!(lines.lines().count(), 2, "{lines:?}");
            let acts = |letter: char| letter != '\n' && letter.is_control() || letter == '\u{202e}';
            assert!(!lines.contains(acts), "{lines:?}");
        }
        assert!(text.contains(r"a\n2026") && text.contains(r"forged\r\x1b[2J"), "{text:?}");
        let read: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(read.iter().all(|line| line["words"] == words && line["message"] == words), "{json}");
        assert_eq!((&read[0]["request_id"], read[1].get("request_id")), (&"id".into(), None));
    }

    #[test]
    fn panics_are_logged_without_what_was_put_together() {
        let before = std::panic::take_hook();
        log_panics();
        let said = logged(|| {
            let name = "Juana";
            assert!(std::panic::catch_unwind(|| panic!("{name} is not a number")).is_err());
            assert!(std::panic::catch_unwind(|| panic!("a constant")).is_err());
        });
        std::panic::set_hook(before);
        for lines in said {
            assert!(!lines.contains("Juana"), "{lines}");
            assert!(
                lines.contains("panic: the message is not logged") && lines.contains("panic: a constant"),
                "{lines}"
            );
            assert!(lines.contains("logging.rs:"), "where it was: {lines}");
        }
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
