//! Who is told of requests: OpenTelemetry's own variables, resolved.

use std::time::Duration;

use caudal_telemetry::{Encoding, Protocol, Sampler, Settings, address, pairs};

use super::{Origin, SettingsError, resolve::Reader};

/// What the server is called when nobody says.
const SERVICE: &str = "caudal";

impl Reader<'_> {
    /// Who is told of requests, and how; nobody unless a collector is named, or the exporter. What is wrong is wrong even
    /// where nobody is told.
    pub(super) fn telemetry(&self) -> Result<Option<Settings>, SettingsError> {
        let flag = |key| Ok::<_, SettingsError>(self.word(key, &["true", "false"], "it is true or false")? == "true");
        let millis = |key, least| {
            Ok::<_, SettingsError>(Duration::from_secs_f64(self.number::<f64>(key, least, 86_400_000.0)? / 1e3))
        };
        let disabled = flag("otel_disabled")?;
        let exporter = self.word("otel_exporter", &["", "otlp", "none"], "it is otlp or none")?;
        let protocol = match &*self.word("otel_protocol", &["http/protobuf", "grpc"], "it is http/protobuf or grpc")? {
            "grpc" => Protocol::Grpc,
            _ => Protocol::Http,
        };
        let named = |key, whole| {
            let said = self.optional_text(key).map(|text| address(text, protocol, whole)).transpose();
            said.map_err(|reason| self.invalid(key, reason))
        };
        let (all, traces) = (named("otel_endpoint", false)?, named("otel_traces_endpoint", true)?);
        let settings = Settings {
            protocol,
            endpoint: traces.clone().or_else(|| all.clone()).unwrap_or_else(|| {
                // Where collectors listen that say nothing else.
                let here = match protocol {
                    Protocol::Http => "http://localhost:4318/v1/traces",
                    Protocol::Grpc => "http://localhost:4317",
                };
                here.to_owned()
            }),
            headers: {
                let headers = Settings::headers(self.text("otel_headers"));
                headers.map_err(|reason| self.secret("otel_headers", reason))?
            },
            timeout: millis("otel_timeout_ms", 1.0)?,
            encoding: match &*self.word("otel_compression", &["none", "gzip"], "it is none or gzip")? {
                "gzip" => Encoding::Gzip,
                _ => Encoding::Plain,
            },
            certificate: self.optional_text("otel_certificate").map(Into::into),
            resource: self.resource()?,
            sampler: self.sampler()?,
            queue: self.number("otel_queue_size", 1, 1 << 20)?,
            batch: self.batch()?,
            delay: millis("otel_delay_ms", 0.0)?,
            stages: flag("otel_stages")?,
        };
        let asked = match &*exporter {
            "none" => false,
            "otlp" => true,
            _ => all.is_some() || traces.is_some(),
        };
        Ok(Some(settings).filter(|_| asked && !disabled))
    }

    fn sampler(&self) -> Result<Sampler, SettingsError> {
        let ratio = self.number::<f64>("otel_sampler_arg", 0.0, 1.0)?;
        let name = self.text("otel_sampler").to_lowercase();
        Sampler::named(&name, ratio)
            .ok_or_else(|| self.invalid("otel_sampler", format!("it is one of {}", Sampler::NAMES.join(", "))))
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
        let mut said = pairs(self.text(key)).map_err(|reason| self.invalid(key, reason))?;
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

    fn resolve(said: &[(&str, &str)]) -> Option<Settings> {
        let raw = |entry: &'static crate::settings::Key| {
            let value = said.iter().find(|(key, _)| *key == entry.name).map_or(entry.default, |(_, value)| value);
            Raw { key: entry.name, value: value.to_owned(), origin: Origin::Default }
        };
        All::resolve(&TABLE.iter().map(raw).collect::<Vec<_>>()).unwrap().telemetry
    }

    fn endpoint(said: &[(&str, &str)]) -> Option<String> {
        resolve(said).map(|settings| settings.endpoint)
    }

    #[test]
    fn somebody_is_told_where_a_collector_or_the_exporter_is_named() {
        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[("otel_exporter", "otlp")]).as_deref(), Some("http://localhost:4318/v1/traces"));
        assert_eq!(
            endpoint(&[("otel_exporter", "otlp"), ("otel_protocol", "grpc")]).as_deref(),
            Some("http://localhost:4317")
        );
        assert_eq!(endpoint(&[("otel_endpoint", "http://c:1")]).as_deref(), Some("http://c:1/v1/traces"));
        let both = [("otel_endpoint", "http://c:1"), ("otel_traces_endpoint", "http://d/x")];
        assert_eq!(endpoint(&both).as_deref(), Some("http://d/x"));
        assert_eq!(endpoint(&[("otel_endpoint", "http://c:1"), ("otel_exporter", "none")]), None);
        assert_eq!(endpoint(&[("otel_endpoint", "http://c:1"), ("otel_disabled", "true")]), None);
    }

    #[test]
    fn the_name_of_the_service_goes_before_what_else_is_said() {
        let name = |said: &[(&str, &str)]| {
            let resource = resolve(&[&[("otel_exporter", "otlp")], said].concat()).unwrap().resource;
            let names: Vec<_> = resource.into_iter().filter(|(key, _)| key == "service.name").collect();
            assert_eq!(names.len(), 1);
            names[0].1.clone()
        };
        assert_eq!(name(&[]), "caudal");
        assert_eq!(name(&[("otel_resource_attributes", "a=b,service.name=c")]), "c");
        assert_eq!(name(&[("otel_resource_attributes", "service.name=c"), ("otel_service_name", "d")]), "d");
    }
}
