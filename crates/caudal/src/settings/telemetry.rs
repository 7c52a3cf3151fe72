//! Who is told of requests and metrics: OpenTelemetry's own variables, resolved.

use std::time::Duration;

use caudal_telemetry::{
    Collector, Encoding, METRICS_PATH, MetricSettings, Protocol, Sampler, Settings, TRACES_PATH, TraceSettings,
    export_endpoint, parse_key_values,
};

use super::{Origin, SettingsError, resolve::Reader};

/// What the server is called when nobody says.
const SERVICE: &str = "caudal";

/// Where collectors listen that say nothing else.
const BY_HTTP: &str = "http://localhost:4318";
const BY_GRPC: &str = "http://localhost:4317";

/// What is told of.
struct Signal {
    /// What its own settings are called: these go before those of all signals.
    name: &'static str,
    /// The setting that asks for it.
    exporter: &'static str,
    /// Where collectors take it by HTTP.
    path: &'static str,
}

const OF_REQUESTS: Signal = Signal { name: "traces", exporter: "otel_exporter", path: TRACES_PATH };
const OF_METRICS: Signal = Signal { name: "metrics", exporter: "otel_metrics_exporter", path: METRICS_PATH };

impl Reader<'_> {
    /// Who is told, and how; nobody unless a collector is named, or the exporter. What is wrong is wrong even where nobody
    /// is told.
    pub(super) fn telemetry(&self) -> Result<Settings, SettingsError> {
        let disabled = self.flag("otel_disabled")?;
        let (of_requests, of_metrics) = (self.collector(&OF_REQUESTS)?, self.collector(&OF_METRICS)?);
        let traces = TraceSettings {
            collector: of_requests,
            resource: self.resource()?,
            sampler: self.sampler()?,
            queue: self.number("otel_queue_size", 1, 1 << 20)?,
            batch: self.batch()?,
            delay: self.millis("otel_delay_ms", 0.0)?,
            stages: self.flag("otel_stages")?,
        };
        let metrics = MetricSettings {
            collector: of_metrics,
            resource: self.resource()?,
            interval: self.millis("otel_metrics_interval_ms", 1.0)?,
        };
        let (requests_asked, metrics_asked) = (self.is_asked(&OF_REQUESTS)?, self.is_asked(&OF_METRICS)?);
        Ok(Settings {
            traces: Some(traces).filter(|_| requests_asked && !disabled),
            metrics: Some(metrics).filter(|_| metrics_asked && !disabled),
        })
    }

    fn flag(&self, key: &str) -> Result<bool, SettingsError> {
        Ok(self.word(key, &["true", "false"], "it is true or false")? == "true")
    }

    fn millis(&self, key: &str, least: f64) -> Result<Duration, SettingsError> {
        Ok(Duration::from_secs_f64(self.number::<f64>(key, least, 86_400_000.0)? / 1e3))
    }

    /// Whether a signal is to be told.
    fn is_asked(&self, signal: &Signal) -> Result<bool, SettingsError> {
        let exporter = self.word(signal.exporter, &["", "otlp", "none"], "it is otlp or none")?;
        let named = || self.optional_text(&self.key(signal, "endpoint")).is_some();
        Ok(exporter == "otlp" || exporter.is_empty() && named())
    }

    /// The setting `what` that holds for a signal: its own, or that of all signals where nobody says its own.
    fn key(&self, signal: &Signal, what: &str) -> String {
        let own = format!("otel_{}_{what}", signal.name);
        match self.optional_text(&own) {
            Some(_) => own,
            None => format!("otel_{what}"),
        }
    }

    /// Who is told of a signal.
    fn collector(&self, signal: &Signal) -> Result<Collector, SettingsError> {
        let key = |what| self.key(signal, what);
        let protocol = self.word(&key("protocol"), &["http/protobuf", "grpc"], "it is http/protobuf or grpc")?;
        let protocol = if protocol == "grpc" { Protocol::Grpc } else { Protocol::Http };
        let compression = self.word(&key("compression"), &["none", "gzip"], "it is none or gzip")?;
        let headers = Collector::parse_headers(self.text(&key("headers")));
        Ok(Collector {
            protocol,
            endpoint: self.endpoint(signal, protocol)?,
            headers: headers.map_err(|reason| self.secret(&key("headers"), reason))?,
            timeout: self.millis(&key("timeout_ms"), 1.0)?,
            encoding: if compression == "gzip" { Encoding::Gzip } else { Encoding::Plain },
            certificate: self.optional_text(&key("certificate")).map(Into::into),
        })
    }

    /// Where a signal goes. One's own address is the whole of it; others are for all signals.
    fn endpoint(&self, signal: &Signal, protocol: Protocol) -> Result<String, SettingsError> {
        let (own, all) = (format!("otel_{}_endpoint", signal.name), "otel_endpoint");
        let named = |key: &str, path| {
            let said = self.optional_text(key).map(|text| export_endpoint(text, protocol, path)).transpose();
            said.map_err(|reason| self.invalid(key, reason))
        };
        let (own, all) = (named(&own, None)?, named(all, Some(signal.path))?);
        Ok(own.or(all).unwrap_or_else(|| match protocol {
            Protocol::Http => format!("{BY_HTTP}{}", signal.path),
            Protocol::Grpc => BY_GRPC.to_owned(),
        }))
    }

    fn sampler(&self) -> Result<Sampler, SettingsError> {
        let ratio = self.number::<f64>("otel_sampler_arg", 0.0, 1.0)?;
        let name = self.text("otel_sampler").to_lowercase();
        Sampler::from_name(&name, ratio)
            .ok_or_else(|| self.invalid("otel_sampler", format!("it is one of {}", Sampler::ALL_NAMES.join(", "))))
    }

    /// A batch is no larger than what may wait.
    fn batch(&self) -> Result<usize, SettingsError> {
        let (queue, batch) = (self.number("otel_queue_size", 1, 1 << 20)?, self.number("otel_batch_size", 1, 1 << 20)?);
        match batch > queue && self.raw("otel_batch_size").origin != Origin::Default {
            true => Err(self.invalid("otel_batch_size", format!("it is at most otel_queue_size ({queue})"))),
            false => Ok(batch.min(queue)),
        }
    }

    /// What is said of this process. A service's name goes before one that is said among the rest.
    fn resource(&self) -> Result<Vec<(String, String)>, SettingsError> {
        let key = "otel_resource_attributes";
        let mut said = parse_key_values(self.text(key)).map_err(|reason| self.invalid(key, reason))?;
        if let Some(name) = self.optional_text("otel_service_name") {
            said.retain(|(key, _)| key != "service.name");
            said.push(("service.name".to_owned(), name.to_owned()));
        }
        let own = [
            ("service.name", SERVICE.to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("host.name", rustix::system::uname().nodename().to_string_lossy().into_owned()),
            ("process.pid", std::process::id().to_string()),
        ];
        for (key, value) in own {
            if said.iter().all(|(known, _)| known != key) {
                said.push((key.to_owned(), value));
            }
        }
        Ok(said)
    }

    /// The error of a value that nobody is shown.
    fn secret(&self, key: &str, reason: String) -> SettingsError {
        match self.invalid(key, reason) {
            SettingsError::Invalid { key, origin, reason, .. } => {
                SettingsError::Invalid { key, value: "…".to_owned(), origin, reason }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Raw, Settings as All, TABLE};

    fn resolve(said: &[(&str, &str)]) -> Settings {
        let raw = |entry: &'static crate::settings::Key| {
            let value = said.iter().find(|(key, _)| *key == entry.name).map_or(entry.default, |(_, value)| value);
            Raw { key: entry.name, value: value.to_owned(), origin: Origin::Default }
        };
        All::resolve(&TABLE.iter().map(raw).collect::<Vec<_>>()).unwrap().telemetry
    }

    /// Where traces and metrics go, if anywhere.
    fn check(said: &[(&str, &str)], traces: Option<&str>, metrics: Option<&str>) {
        let settings = resolve(said);
        assert_eq!(settings.traces.map(|settings| settings.collector.endpoint).as_deref(), traces, "{said:?}");
        assert_eq!(settings.metrics.map(|settings| settings.collector.endpoint).as_deref(), metrics, "{said:?}");
    }

    #[test]
    fn somebody_is_told_where_a_collector_or_the_exporter_is_named() {
        check(&[], None, None);
        check(&[("otel_exporter", "otlp")], Some("http://localhost:4318/v1/traces"), None);
        check(&[("otel_metrics_exporter", "otlp")], None, Some("http://localhost:4318/v1/metrics"));
        check(&[("otel_exporter", "otlp"), ("otel_protocol", "grpc")], Some("http://localhost:4317"), None);
        let all = ("otel_endpoint", "http://c:1");
        check(&[all], Some("http://c:1/v1/traces"), Some("http://c:1/v1/metrics"));
        check(&[all, ("otel_traces_endpoint", "http://d/x")], Some("http://d/x"), Some("http://c:1/v1/metrics"));
        check(&[all, ("otel_metrics_endpoint", "http://d/x")], Some("http://c:1/v1/traces"), Some("http://d/x"));
        check(&[("otel_traces_endpoint", "http://d/x")], Some("http://d/x"), None);
        check(&[("otel_metrics_endpoint", "http://d/x")], None, Some("http://d/x"));
        check(&[all, ("otel_exporter", "none")], None, Some("http://c:1/v1/metrics"));
        check(&[all, ("otel_metrics_exporter", "none")], Some("http://c:1/v1/traces"), None);
        check(&[all, ("otel_disabled", "true")], None, None);
    }

    #[test]
    fn what_is_said_of_one_signal_holds_for_it_alone() {
        let settings = resolve(&[
            ("otel_endpoint", "http://c:1"),
            ("otel_timeout_ms", "5"),
            ("otel_traces_headers", "key=secret"),
            ("otel_metrics_protocol", "grpc"),
            ("otel_metrics_timeout_ms", "7"),
        ]);
        let (traces, metrics) = (settings.traces.unwrap().collector, settings.metrics.unwrap().collector);
        assert_eq!((traces.protocol, traces.headers.len(), traces.timeout.as_millis()), (Protocol::Http, 1, 5));
        assert_eq!((metrics.protocol, metrics.headers.len(), metrics.timeout.as_millis()), (Protocol::Grpc, 0, 7));
        assert_eq!(metrics.endpoint, "http://c:1");
    }

    #[test]
    fn the_name_of_the_service_goes_before_what_else_is_said() {
        let name = |said: &[(&str, &str)]| {
            let resource = resolve(&[&[("otel_exporter", "otlp")], said].concat()).traces.unwrap().resource;
            let names: Vec<_> = resource.into_iter().filter(|(key, _)| key == "service.name").collect();
            assert_eq!(names.len(), 1);
            names[0].1.clone()
        };
        assert_eq!(name(&[]), "caudal");
        assert_eq!(name(&[("otel_resource_attributes", "a=b,service.name=c")]), "c");
        assert_eq!(name(&[("otel_resource_attributes", "service.name=c"), ("otel_service_name", "d")]), "d");
    }
}
