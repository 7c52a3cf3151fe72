//! From words to what the parts want: every value is checked here, once.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use caudal_engine::{Provider, UnknownProvider};
use caudal_memory::Policy;
use caudal_record::archive::Codec;
use caudal_server::{
    AccessSettings, AdminAccess, AllowedHosts, AllowedOrigins, ModelControl, Profiling, RecordSettings, Secret,
    ServerSettings, SlowRequests, WINDOWS,
};
use caudal_tasks::{Defaults, Stay};
use caudal_types::{CpuPlan, available_cpus};

use super::{Raw, SettingsError, bounds::ModelBounds, database};

/// Which models are loaded at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Load {
    All,
    Named(Vec<String>),
}

/// How archives are made.
#[derive(Debug, Clone)]
pub(crate) struct SealPolicy {
    /// Of consultations to which nothing was appended for so long; none by itself.
    pub(crate) after: Option<Duration>,
    pub(crate) codec: Codec,
    /// Bytes after which a file takes no more.
    pub(crate) limit: u64,
}

/// All settings, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where consultations are kept, if they are.
    pub(crate) data_dir: Option<PathBuf>,
    /// Whether the group of the server's user may read its files.
    pub(crate) data_group_read: bool,
    /// The database for their events, where it is PostgreSQL.
    pub(crate) database: Option<caudal_store::postgres::Options>,
    /// How archives are made.
    pub(crate) seal: SealPolicy,
    /// Whether an acknowledgement waits for the disk.
    pub(crate) record_flush: bool,
    /// How often it is kept what a consultation comes to.
    pub(crate) record_snapshot_every: u64,
    /// Bytes of exports made over HTTP.
    pub(crate) record_exports: u64,
    pub(crate) model_repository: PathBuf,
    pub(crate) onnxruntime_library: Option<PathBuf>,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    pub(crate) max_pixels: u64,
    pub(crate) max_pixel_memory: u64,
    pub(crate) pin_to_quota: bool,
    pub(crate) models: Defaults,
    pub(crate) stay: Stay,
    pub(crate) bounds: ModelBounds,
    pub(crate) watch: bool,
    pub(crate) load: Load,
    pub(crate) server: ServerSettings,
    /// Where pipelines are, and what they may take.
    pub(crate) flow: FlowSettings,
    /// Who is told of requests and metrics, if anybody.
    pub(crate) telemetry: caudal_telemetry::Settings,
}

/// Where pipelines are, and what they may take.
#[derive(Debug, Clone)]
pub(crate) struct FlowSettings {
    pub(crate) folder: PathBuf,
    /// Whether runs are stored; if not, they are in memory only.
    pub(crate) durable: bool,
    pub(crate) most_steps: usize,
    /// How many runs go on concurrently, and how many bytes their inputs hold together.
    pub(crate) room: (usize, u64),
    pub(crate) cache_bytes: u64,
    pub(crate) cache_ttl: Duration,
    /// Bytes of answers that are remembered on disk; none if they are not.
    pub(crate) shelf_bytes: Option<u64>,
}

const MIB: u64 = 1 << 20;

impl Settings {
    /// Resolves what was gathered.
    pub(crate) fn resolve(values: &[Raw]) -> Result<Self, SettingsError> {
        let read = Reader(values);
        read.number::<u16>("grpc_port", 0, u16::MAX)?;
        read.word("tls_terminated_by_proxy", &["true", "false"], "it is true or false")?;
        let mib = |key, least| Ok::<u64, SettingsError>(read.number::<u64>(key, least, 1 << 20)? * MIB);
        let seconds = |key| Ok::<_, SettingsError>(Duration::from_secs_f64(read.number::<f64>(key, 0.001, 86_400.0)?));
        let millis = |key, least| {
            Ok::<_, SettingsError>(Duration::from_secs_f64(read.number::<f64>(key, least, 86_400_000.0)? / 1e3))
        };
        let planned = CpuPlan::for_cpus(available_cpus());
        let cpus = CpuPlan {
            io_threads: read.optional("io_threads", 1, 256)?.unwrap_or(planned.io_threads),
            decode_threads: read.optional("decode_threads", 1, 1024)?.unwrap_or(planned.decode_threads),
            ..planned
        };
        let modes = ["none", "poll", "explicit"];
        let poll = seconds("repository_poll_secs")?;
        let model_control = match &*read.word("model_control_mode", &modes, "it is none, poll or explicit")? {
            "poll" => ModelControl::Poll(poll),
            "explicit" => ModelControl::Explicit,
            _ => ModelControl::None,
        };
        Ok(Self {
            flow: FlowSettings {
                folder: read.text("pipelines").into(),
                durable: read.word("flow_durable", &["true", "false"], "it is true or false")? == "true",
                most_steps: read.number("flow_max_steps", 1, 100_000_000)?,
                room: (read.number("flow_max_runs", 1, 1_000_000)?, mib("flow_runs_mb", 1)?),
                cache_bytes: mib("flow_cache_mb", 0)?,
                cache_ttl: seconds("flow_cache_ttl_secs")?,
                shelf_bytes: match &*read.word("flow_cache", &["memory", "sqlite"], "it is memory or sqlite")? {
                    "sqlite" => Some(mib("flow_cache_disk_mb", 1)?),
                    _ => None,
                },
            },
            load: read.load(model_control)?,
            telemetry: read.telemetry()?,
            stay: Stay {
                memory: read.optional("model_memory_mb", 1, 1 << 24)?.map(|mib| mib as u64 * MIB),
                idle: read.optional_text("idle_unload_secs").map(|_| seconds("idle_unload_secs")).transpose()?,
            },
            bounds: read.bounds()?,
            watch: read.word("watch", &["true", "false"], "it is true or false")? == "true",
            data_dir: read.optional_text("data_dir").map(PathBuf::from),
            data_group_read: read.word("data_group_read", &["true", "false"], "it is true or false")? == "true",
            database: read.database()?,
            seal: read.seal_policy()?,
            record_flush: read.word("record_flush", &["true", "false"], "it is true or false")? == "true",
            record_snapshot_every: read.number("record_snapshot_every", 1, 1 << 32)?,
            record_exports: mib("record_exports_mb", 1)?,
            model_repository: read.text("model_repository").into(),
            onnxruntime_library: read.optional_text("onnxruntime_library").map(PathBuf::from),
            log_level: read.text("log_level").to_lowercase(),
            log_json: read.word("log_format", &["text", "json"], "text or json")? == "json",
            max_pixels: (read.number::<f64>("max_image_megapixels", 0.001, 65_536.0)? * 1e6) as u64,
            max_pixel_memory: mib("max_pixel_memory_mb", 1)?,
            pin_to_quota: read.word("pin_to_quota", &["true", "false"], "true or false")? == "true",
            models: Defaults {
                cpus,
                providers: read.providers()?,
                instances: read.optional("instances", 1, 1024)?,
                threads: read.optional("threads", 1, 1024)?,
                max_batch_size: read.optional("max_batch_size", 1, 65_536)?,
                max_queue_delay: millis("max_queue_delay_ms", 0.0)?,
                max_queue_size: read.number("max_queue_size", 1, 1 << 20)?,
                max_queue_bytes: mib("max_queue_mb", 1)? as usize,
                run_limit: millis("request_timeout_ms", 1.0)?,
            },
            server: ServerSettings {
                host: read.address("host")?,
                port: read.number("http_port", 0, u16::MAX)?,
                admin: read.admin()?,
                io_threads: cpus.io_threads,
                backlog: read.number("backlog", 1, 1 << 20)?,
                max_body_bytes: mib("max_file_size_mb", 1)?,
                max_body_memory: mib("max_body_memory_mb", 1)?,
                max_images: read.number("max_images", 1, 4096)?,
                concurrency_limit: read.number("concurrency_limit", 1, 1 << 20)?,
                max_connections: read.number("max_connections", 1, 1 << 20)?,
                request_timeout: millis("request_timeout_ms", 1.0)?,
                header_timeout: seconds("header_timeout_secs")?,
                body_timeout: seconds("body_timeout_secs")?,
                keep_alive: seconds("keep_alive_secs")?,
                exit_timeout: seconds("exit_timeout_secs")?,
                access: read.access()?,
                model_control,
                strict_readiness: read.word("strict_readiness", &["true", "false"], "it is true or false")? == "true",
                memory: read.memory()?,
                record: RecordSettings {
                    max_event: read.number::<u64>("record_max_event_kb", 1, 1 << 20)? << 10,
                    timezone: read.text("record_timezone").to_owned(),
                },
                api_docs_enabled: read.word("api_docs_enabled", &["true", "false"], "it is true or false")? == "true",
                metrics_enabled: read.word("metrics_enabled", &["true", "false"], "it is true or false")? == "true",
                triton_metrics: read.word("triton_metrics", &["true", "false"], "true or false")? == "true",
                slow_request: match read.text("slow_request_threshold_ms") {
                    "auto" => SlowRequests::AUTO,
                    _ => SlowRequests::from(millis("slow_request_threshold_ms", 0.0)?),
                },
                kpi_bucket: seconds("kpi_bucket_secs")?,
                kpi_retention: Duration::from_secs_f64(
                    60.0 * read.number::<f64>("kpi_retention_minutes", 1.0, 10_080.0)?,
                ),
                kpi_window: {
                    let names = WINDOWS.map(|(name, _)| name);
                    let window = read.word("kpi_default_window", &names, "it is 1m, 5m, 15m, 1h or 24h")?;
                    names.into_iter().find(|name| *name == window).unwrap_or(names[0])
                },
                profiling: Profiling {
                    enabled: read.word("enable_profiling", &["true", "false"], "it is true or false")? == "true",
                    threshold: millis("bottleneck_threshold_ms", 0.001)?,
                    folder: read.text("profile_output_dir").into(),
                    format: match &*read.word(
                        "profile_export_format",
                        &["json", "csv", "txt"],
                        "it is json, csv or txt",
                    )? {
                        "csv" => "csv",
                        "txt" => "txt",
                        _ => "json",
                    },
                    span: seconds("profile_window_secs")?,
                    budgets: read
                        .text("latency_budgets")
                        .parse()
                        .map_err(|error: String| read.invalid("latency_budgets", error))?,
                },
            },
        })
    }
}

pub(super) struct Reader<'a>(&'a [Raw]);

impl Reader<'_> {
    pub(super) fn raw(&self, key: &str) -> &Raw {
        self.0.iter().find(|raw| raw.key == key).expect("every key that is read stands in the table")
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.raw(key).value.trim()
    }

    /// PostgreSQL, where that is asked for.
    fn database(&self) -> Result<Option<caudal_store::postgres::Options>, SettingsError> {
        let seconds = |key, least| Ok::<_, SettingsError>(Duration::from_secs_f64(self.number(key, least, 1e7)?));
        let Some(address) = self.optional_text("database_url") else { return Ok(None) };
        let shared = database::is_shared(&self.raw("database_url").origin);
        if shared && self.optional_text("data_dir").is_none() {
            return Ok(None);
        }
        let url = match database::read(address) {
            Ok(database::Address::Postgres(url)) => url,
            Ok(database::Address::Sqlite) if shared => return Ok(None),
            Ok(database::Address::Sqlite) => {
                return Err(self.invalid(
                    "database_url",
                    "SQLite takes no address: the record is in caudal.db in data_dir; unset it",
                ));
            }
            Err(why) => return Err(self.invalid("database_url", why)),
        };
        Ok(Some(caudal_store::postgres::Options {
            pool_size: self.number("db_pool_size", 1, 10_000)?,
            max_overflow: self.number("db_max_overflow", 0, 10_000)?,
            pool_timeout: seconds("db_pool_timeout_secs", 0.001)?,
            pool_recycle: seconds("db_pool_recycle_secs", 1.0)?,
            pre_ping: self.word("db_pool_pre_ping", &["true", "false"], "it is true or false")? == "true",
            echo: self.word("db_echo", &["true", "false"], "it is true or false")? == "true",
            schema: self.text("database_schema").to_owned(),
            ..caudal_store::postgres::Options::at(url)
        }))
    }

    fn seal_policy(&self) -> Result<SealPolicy, SettingsError> {
        let days = match self.optional_text("seal_after_days") {
            Some(_) => Some(self.number::<f64>("seal_after_days", 0.0, 100_000.0)?),
            None => None,
        };
        Ok(SealPolicy {
            after: days.map(|days| Duration::from_secs_f64(days * 86_400.0)),
            codec: self.parsed("seal_codec", "none, gzip-1 to gzip-9, lzf, lz4, or zstd-1 to zstd-19")?,
            limit: self.number::<u64>("seal_file_mb", 1, 1 << 30)? * 1_000_000,
        })
    }

    fn address(&self, key: &str) -> Result<IpAddr, SettingsError> {
        self.parsed(key, "an address such as 127.0.0.1, 0.0.0.0 or ::1")
    }

    /// Where the server is administered, if that is a socket of its own.
    fn admin(&self) -> Result<Option<SocketAddr>, SettingsError> {
        let host = self.address("admin_host")?;
        let port = self.optional_text("admin_port").map(|_| self.number("admin_port", 0, u16::MAX)).transpose()?;
        Ok(port.map(|port| SocketAddr::new(host, port)))
    }

    /// Access control. Without a key admin routes are closed until the server has a token.
    fn access(&self) -> Result<AccessSettings, SettingsError> {
        let insecure = self.word("admin_insecure", &["true", "false"], "it is true or false")? == "true";
        let admin = match self.optional_text("admin_key") {
            Some(_) if insecure => {
                return Err(self.invalid("admin_insecure", "it opens what admin_key closes: set one of the two"));
            }
            Some(key) => AdminAccess::Credential(Secret::new(key)),
            None if insecure => AdminAccess::Insecure,
            None => AdminAccess::Closed,
        };
        let machine = rustix::system::uname();
        let hosts = AllowedHosts::new(self.text("allowed_hosts"), &machine.nodename().to_string_lossy());
        let origins = AllowedOrigins::new(self.text("cors_allowed_origins"));
        Ok(AccessSettings {
            admin,
            hosts: hosts.map_err(|reason| self.invalid("allowed_hosts", reason))?,
            origins: origins.map_err(|reason| self.invalid("cors_allowed_origins", reason))?,
        })
    }

    fn load(&self, control: ModelControl) -> Result<Load, SettingsError> {
        let names = self.text("load_model").split(',').map(str::trim).filter(|name| !name.is_empty());
        match (control, names.map(str::to_owned).collect::<Vec<_>>()) {
            (ModelControl::Explicit, names) if names == ["*"] => Ok(Load::All),
            (ModelControl::Explicit, names) => Ok(Load::Named(names)),
            (_, names) if names.is_empty() => Ok(Load::All),
            _ => Err(self.invalid("load_model", "it needs model_control_mode explicit")),
        }
    }

    /// How memory is watched. What helps comes before what is refused: else work would be turned away while models idle.
    fn memory(&self) -> Result<Policy, SettingsError> {
        let flag = |key| Ok::<_, SettingsError>(self.word(key, &["true", "false"], "true or false")? == "true");
        let seconds = |key, least| Ok::<_, SettingsError>(Duration::from_secs_f64(self.number(key, least, 86_400.0)?));
        let percent = |key| self.number::<f64>(key, 1.0, 100.0);
        let policy = Policy {
            monitoring: flag("memory_monitoring")?,
            interval: seconds("memory_monitoring_interval_secs", 0.001)?,
            alert: percent("memory_threshold_percent")?,
            gpu_alert: percent("gpu_memory_threshold_percent")?,
            auto_cleanup: flag("memory_auto_cleanup")?,
            cleanup: percent("memory_cleanup_threshold_percent")?,
            shed: Some(percent("memory_shed_percent")?).filter(|shed| *shed < 100.0),
            rest_idle: seconds("memory_rest_idle_secs", 0.0)?,
            webhook: self.url("memory_webhook_url")?,
        };
        match policy.shed {
            Some(shed) if policy.auto_cleanup && policy.cleanup > shed => {
                let key = "memory_cleanup_threshold_percent";
                let why = format!(
                    "it is above memory_shed_percent ({shed}): work would be refused before anything is given back; \
                     lower it, or raise memory_shed_percent"
                );
                Err(self.invalid(key, why))
            }
            _ => Ok(policy),
        }
    }

    fn url(&self, key: &str) -> Result<Option<String>, SettingsError> {
        let Some(text) = self.optional_text(key) else { return Ok(None) };
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match host.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace))
        {
            true => Ok(Some(text.to_owned())),
            false => Err(self.invalid(key, "it is an address that begins with http:// or https://")),
        }
    }

    fn providers(&self) -> Result<Vec<Provider>, SettingsError> {
        let names = self.text("providers").split(',').map(str::trim).filter(|name| !name.is_empty());
        let known = |name: &str| name.parse().map_err(|error: UnknownProvider| error.to_string());
        match names.map(known).collect::<Result<Vec<_>, _>>() {
            Ok(providers) if providers.is_empty() => Err(self.invalid("providers", "it names at least one")),
            Ok(providers) => Ok(providers),
            Err(reason) => Err(self.invalid("providers", reason)),
        }
    }

    pub(super) fn optional_text(&self, key: &str) -> Option<&str> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    pub(super) fn invalid(&self, key: &str, reason: impl Into<String>) -> SettingsError {
        let Raw { key, value, origin } = self.raw(key).clone();
        SettingsError::Invalid { key, value, origin, reason: reason.into() }
    }

    pub(super) fn word(&self, key: &str, words: &[&str], reason: &str) -> Result<String, SettingsError> {
        let text = self.text(key).to_lowercase();
        if words.contains(&text.as_str()) { Ok(text) } else { Err(self.invalid(key, reason)) }
    }

    fn parsed<T: FromStr>(&self, key: &str, reason: &str) -> Result<T, SettingsError> {
        self.text(key).parse().map_err(|_| self.invalid(key, format!("it is {reason}")))
    }

    pub(super) fn number<T: FromStr + PartialOrd + ToString>(
        &self,
        key: &str,
        least: T,
        most: T,
    ) -> Result<T, SettingsError> {
        let range = format!("it is a number from {} to {}", least.to_string(), most.to_string());
        let number: Option<T> = self.text(key).parse().ok();
        number.filter(|number| *number >= least && *number <= most).ok_or_else(|| self.invalid(key, range))
    }

    fn optional(&self, key: &str, least: usize, most: usize) -> Result<Option<usize>, SettingsError> {
        self.optional_text(key).map(|_| self.number(key, least, most)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Origin, TABLE};

    fn resolve(key: &str, value: &str) -> Result<Settings, SettingsError> {
        let raw = |entry: &'static crate::settings::Key| Raw {
            key: entry.name,
            value: if entry.name == key { value } else { entry.default }.to_owned(),
            origin: if entry.name == key { Origin::Flag(entry.flag()) } else { Origin::Default },
        };
        Settings::resolve(&TABLE.iter().map(raw).collect::<Vec<_>>())
    }

    #[test]
    fn the_defaults_resolve() {
        let settings = resolve("", "").unwrap();
        assert_eq!(settings.server.port, 8000);
        assert_eq!(settings.server.max_body_bytes, 50 << 20);
        assert_eq!(settings.max_pixels, 64_000_000);
        assert_eq!(settings.models.instances, None);
    }

    fn refused(key: &str, value: &str, words: &str) {
        let error = resolve(key, value).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(words), "{error}");
    }

    #[test]
    fn values_that_cannot_be_are_named_with_their_range() {
        refused("http_port", "70000", "0 to 65535");
        refused("http_port", "eighty", "0 to 65535");
        refused("host", "localhost", "an address such as");
        refused("admin_port", "70000", "0 to 65535");
        refused("admin_host", "localhost", "an address such as");
        refused("admin_insecure", "maybe", "true or false");
        refused("allowed_hosts", "https://ai.example", "not a host name");
        refused("cors_allowed_origins", "ai.example", "not an origin");
        refused("data_group_read", "0640", "true or false");
        refused("providers", "cuda,gpu", "there is no provider \"gpu\"; there are cpu, openvino");
        refused("providers", ",", "at least one");
        refused("max_file_size_mb", "0", "1 to");
        refused("database_url", "mysql://u:p@db/x", "expected postgres://user:password@host:port/database");
        refused("database_url", "sqlite:///x.db", "caudal.db in data_dir");
        refused("flow_durable", "maybe", "true or false");
        refused("tls_terminated_by_proxy", "nginx", "true or false");
        refused("instances", "0", "1 to 1024");
        refused("log_format", "xml", "text or json");
        refused("model_control_mode", "often", "none, poll or explicit");
        refused("load_model", "nanodet", "model_control_mode explicit");
        refused("keep_alive_secs", "-1", "0.001 to 86400");
        refused("model_load_memory_mb", "0", "1 to");
        refused("model_run_memory_mb", "0", "1 to");
        refused("model_load_timeout_secs", "-1", "0 to 86400");
        for key in ["memory_threshold_percent", "gpu_memory_threshold_percent", "memory_shed_percent"] {
            refused(key, "0", "1 to 100");
            refused(key, "101", "1 to 100");
        }
        refused("memory_cleanup_threshold_percent", "96", "above memory_shed_percent (95)");
        refused("memory_shed_percent", "NaN", "1 to 100");
        refused("memory_webhook_url", "hooks.example", "http:// or https://");
        refused("memory_webhook_url", "http://", "http:// or https://");
        refused("otel_exporter", "zipkin", "otlp or none");
        refused("otel_endpoint", "collector:4318", "an address such as http://");
        refused("otel_traces_endpoint", "/v1/traces", "an address such as http://");
        refused("otel_protocol", "http/json", "http/protobuf or grpc");
        refused("otel_headers", "key", "name=value");
        refused("otel_metrics_exporter", "prometheus", "otlp or none");
        refused("otel_metrics_endpoint", "/v1/metrics", "an address such as http://");
        refused("otel_metrics_protocol", "http/json", "http/protobuf or grpc");
        refused("otel_traces_headers", "key", "name=value");
        refused("otel_metrics_interval_ms", "0", "1 to");
        refused("otel_timeout_ms", "soon", "1 to");
        refused("otel_compression", "zstd", "none or gzip");
        refused("otel_resource_attributes", "=1", "name=value");
        refused("otel_sampler", "jaeger_remote", "parentbased_traceidratio");
        refused("otel_sampler_arg", "1.5", "0 to 1");
        refused("otel_queue_size", "0", "1 to");
        refused("otel_batch_size", "4096", "otel_queue_size");
        refused("otel_delay_ms", "-1", "0 to");
    }
}
