//! Variables of the systems that this one replaces and that are no setting here. They are accepted, so that an old
//! environment still starts, and each is explained; one that asks for protection that is not there is refused.

mod groups;
mod table;

use std::{collections::BTreeMap, net::IpAddr, path};

pub(crate) use table::LEGACY;

use super::{SettingsError, injected};

/// When a variable matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Always, and nothing is missing without it.
    Harmless,
    /// Where it is set to something other than `false`.
    Set,
    /// Where it asks for protection that is not there: the server does not start.
    Refused,
    /// The same on an address that other machines reach; on a loopback address a proxy has to do it.
    RefusedUnlessLoopback,
}

/// A variable without effect.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) name: &'static str,
    /// Its effect in the system that it comes from; completes "there it …".
    pub(crate) effect: &'static str,
    /// The way to the same here, or why none is needed.
    pub(crate) here: &'static str,
    pub(crate) when: When,
}

/// Something to be said about a variable when the server starts, and by `caudal config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The variable, the first of several.
    pub(crate) name: String,
    /// Whether something that was asked for does not happen.
    pub(crate) warns: bool,
    pub(crate) text: String,
}

/// Whether a switch is off, or a value empty.
pub(super) fn is_off(value: &str) -> bool {
    matches!(value.trim().to_lowercase().as_str(), "" | "false" | "0" | "no" | "off" | "none" | "null")
}

/// Whether a switch is on.
pub(super) fn is_on(value: &str) -> bool {
    matches!(value.trim().to_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// The settings that some variables stand for by their value, not by their name: `(key, value, variable)`.
pub(super) fn translate(environment: &BTreeMap<String, String>) -> Vec<(&'static str, &'static str, &'static str)> {
    let value = |name: &str| environment.get(name).map_or("", String::as_str).trim().to_lowercase();
    let mut found = Vec::new();
    if matches!(&*value("FLUJO_STATE_URI"), "memory" | "memory://" | "mem://" | "inmemory://") {
        found.push(("flow_durable", "false", "FLUJO_STATE_URI"));
    }
    if matches!(&*value("FLUJO_STATE_MODE"), "memory" | "ephemeral") {
        found.push(("flow_durable", "false", "FLUJO_STATE_MODE"));
    }
    if is_on(&value("FLUJO_EPHEMERAL_STATE")) {
        found.push(("flow_durable", "false", "FLUJO_EPHEMERAL_STATE"));
    }
    match &*value("LOG_FORMAT") {
        "json" => found.push(("log_format", "json", "LOG_FORMAT")),
        "text" => found.push(("log_format", "text", "LOG_FORMAT")),
        _ => {}
    }
    found
}

/// What is to be said of the variables of other systems in `environment`; `read` are those that were taken for settings,
/// `setting` gives the value of a setting.
pub(super) fn notices<'a>(
    environment: &BTreeMap<String, String>,
    read: &[&str],
    setting: &dyn Fn(&str) -> &'a str,
) -> Result<Vec<Notice>, SettingsError> {
    let mut notices = Vec::new();
    for legacy in LEGACY {
        let Some((name, value)) = legacy.find(environment) else { continue };
        if read.contains(&name) {
            continue;
        }
        let matters = match legacy.when {
            When::Harmless => true,
            _ if is_off(value) || is_satisfied(legacy.name, value, setting) => false,
            When::Set => true,
            When::RefusedUnlessLoopback if !is_reached_by_others(setting("host")) => true,
            When::Refused | When::RefusedUnlessLoopback => {
                let name = name.to_owned();
                return Err(SettingsError::Refused { name, effect: legacy.effect, here: legacy.here });
            }
        };
        if matters {
            let (name, warns) = (name.to_owned(), legacy.when != When::Harmless);
            let text = format!("${name} has no effect: elsewhere it {}; here {}", legacy.effect, legacy.here);
            notices.push(Notice { name, warns, text });
        }
    }
    notices.extend(groups::notices(environment, read));
    Ok(notices)
}

impl Legacy {
    /// The variable in `environment`, or the one that names a file with its value, as secrets of containers are passed.
    fn find<'a>(&self, environment: &'a BTreeMap<String, String>) -> Option<(&'a str, &'a str)> {
        let in_file = format!("{}{IN_FILE}", self.name);
        let names = [self.name, &in_file];
        let mut found = names.iter().filter_map(|name| environment.get_key_value(*name));
        let is_said = |(name, value): &(&String, &String)| {
            !value.trim().is_empty() && !injected::is_of_service(name, value, environment)
        };
        found.find(is_said).map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The end of the name of a variable that names a file with the value.
const IN_FILE: &str = "_FILE";

/// Whether the value `value` of the variable `name` asks for nothing, or for what the settings give already.
fn is_satisfied<'a>(name: &str, value: &str, setting: &dyn Fn(&str) -> &'a str) -> bool {
    match name {
        "ENFORCE_HTTPS" | "UVICORN_SSL_CERTFILE" | "UVICORN_SSL_KEYFILE" => {
            setting("tls_terminated_by_proxy") == "true"
        }
        "FLUJO_GOVERNANCE_MODE" => value.trim().eq_ignore_ascii_case("allow_all"),
        "TRUSTED_MODELS_DIR" => {
            let folders = (path::absolute(setting("model_repository")), path::absolute(value.trim()));
            matches!(folders, (Ok(repository), Ok(trusted)) if repository.starts_with(&trusted))
        }
        _ => false,
    }
}

/// Whether other machines reach a server that listens on `host`.
fn is_reached_by_others(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices_with(
        settings: &[(&str, &'static str)],
        variables: &[(&str, &str)],
    ) -> Result<Vec<Notice>, SettingsError> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let setting = |key: &str| settings.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| *value);
        notices(&environment, &[], &setting)
    }

    fn said(variables: &[(&str, &str)]) -> Vec<Notice> {
        notices_with(&[], variables).unwrap()
    }

    #[track_caller]
    fn refused(settings: &[(&str, &'static str)], variable: (&str, &str)) {
        let error = notices_with(settings, &[variable]).expect_err(variable.0).to_string();
        assert!(error.starts_with(&format!("${} is set and not supported", variable.0)), "{error}");
        assert!(variable.1.len() < 5 || !error.contains(variable.1), "no value is told: {error}");
    }

    #[test]
    fn protection_that_is_not_there_keeps_the_server_from_starting() {
        for variable in [
            ("ENFORCE_HTTPS", "true"),
            ("UVICORN_SSL_CERTFILE", "/etc/tls/cert.pem"),
            ("FLUJO_GOVERNANCE_MODE", "deny_all"),
            ("FLUJO_GOVERNANCE_PII_SCRUB", "1"),
            ("FLUJO_GOVERNANCE_PII_STRONG", "1"),
            ("FLUJO_GOVERNANCE_POLICY_MODULE", "policies:Strict"),
            ("FLUJO_GOVERNANCE_TOOL_ALLOWLIST", "search"),
            ("FLUJO_SANDBOX_MODE", "docker"),
            ("TRUSTED_HASHES_FILE", "hashes.txt"),
            ("TRUSTED_MODELS_DIR", "/srv/trusted"),
            ("ENCRYPTION_KEK_B64", "c2VjcmV0LWtleQ=="),
        ] {
            refused(&[("model_repository", "models"), ("host", "127.0.0.1")], variable);
        }
    }

    #[test]
    fn values_that_ask_for_no_protection_or_for_what_is_there_are_accepted() {
        let settings = [("tls_terminated_by_proxy", "true"), ("model_repository", "models/detectors")];
        for variable in [
            ("ENFORCE_HTTPS", "true"),
            ("UVICORN_SSL_KEYFILE", "/etc/tls/key.pem"),
            ("FLUJO_GOVERNANCE_MODE", "Allow_All"),
            ("FLUJO_SANDBOX_MODE", "null"),
            ("TRUSTED_MODELS_DIR", "./models"),
            ("ENCRYPTION_KEK_B64", ""),
        ] {
            assert_eq!(notices_with(&settings, &[variable]).unwrap(), [], "{variable:?}");
        }
    }

    #[test]
    fn tokens_and_rates_are_refused_where_other_machines_reach_the_server() {
        for variable in [
            ("SECRET_KEY", "s3cret-of-users"),
            ("JWT_SECRET", "s3cret-of-users"),
            ("DECODER_JWT_SECRET_FILE", "/run/secrets/decoder"),
            ("RATE_LIMIT_ENABLED", "true"),
            ("API_RATE_LIMIT", "100"),
        ] {
            for host in ["0.0.0.0", "::", "10.0.0.7"] {
                refused(&[("host", host)], variable);
            }
            for host in ["127.0.0.1", "::1"] {
                let notices = notices_with(&[("host", host)], &[variable]).unwrap();
                assert!(matches!(&notices[..], [notice] if notice.warns && notice.name == variable.0), "{notices:?}");
            }
        }
    }

    #[test]
    fn services_of_kubernetes_are_not_taken_for_variables_of_other_systems() {
        let services = [
            ("DECODER_PORT", "tcp://10.96.0.7:8001"),
            ("DECODER_SERVICE_HOST", "10.96.0.7"),
            ("COORDINATOR_PORT", "tcp://10.96.0.8:5100"),
            ("REDIS_PORT", "tcp://10.96.0.9:6379"),
            ("REDIS_SERVICE_PORT", "6379"),
            ("REDIS_PORT_6379_TCP_ADDR", "10.96.0.9"),
            ("MINIO_PORT", "tcp://10.96.0.10:9000"),
            ("MINIO_ENV_MINIO_ROOT_USER", "minio"),
        ];
        assert_eq!(said(&services), []);
        let plain = said(&[("DECODER_PORT", "8001"), ("REDIS_PORT", "6379")]);
        assert_eq!(plain.iter().map(|notice| notice.name.as_str()).collect::<Vec<_>>(), ["DECODER_PORT", "REDIS_PORT"]);
    }

    #[test]
    fn empty_and_false_values_are_not_mentioned() {
        for value in ["", " ", "false", "False", "0", "no", "none"] {
            let names =
                ["REDIS_URL", "ENFORCE_HTTPS", "USE_FP16", "FLUJO_STATE_MODE", "RATE_LIMIT_ENABLED", "UTS_ROLE"];
            let variables: Vec<(&str, &str)> = names.iter().map(|name| (*name, value)).collect();
            assert_eq!(said(&variables), [], "{value:?}");
        }
    }

    #[test]
    fn notice_names_the_effect_and_the_setting_and_no_value() {
        let notices = said(&[("REDIS_URL", "redis://:pa55@cache/0"), ("WORKERS", "8")]);
        assert_eq!(notices.iter().map(|notice| notice.warns).collect::<Vec<_>>(), [false, true]);
        assert!(notices.iter().all(|notice| !notice.text.contains("pa55")), "{notices:?}");
        assert!(notices[1].text.contains("$REDIS_URL has no effect: elsewhere it is the Redis server"), "{notices:?}");
    }

    #[test]
    fn unexplained_variables_of_a_system_share_a_line() {
        let notices = said(&[("UTS_ROLE", "decoder"), ("ETCD_HOST", "etcd"), ("FLUJO_TRACE_EXTRA", "1")]);
        let texts: Vec<&str> = notices.iter().map(|notice| notice.text.as_str()).collect();
        assert!(texts[0].starts_with("$FLUJO_TRACE_EXTRA has no effect: it is about settings of Flujo"), "{texts:?}");
        assert!(texts[1].starts_with("$ETCD_HOST, $UTS_ROLE have no effect: they are about services"), "{texts:?}");
    }

    #[test]
    fn in_memory_state_of_flujo_makes_runs_ephemeral() {
        for (name, value) in
            [("FLUJO_STATE_URI", "memory://"), ("FLUJO_STATE_MODE", "Ephemeral"), ("FLUJO_EPHEMERAL_STATE", "1")]
        {
            let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(translate(&environment), [("flow_durable", "false", name)]);
        }
        let environment = BTreeMap::from([("FLUJO_STATE_URI".to_owned(), "sqlite:///runs.db".to_owned())]);
        assert_eq!(translate(&environment), []);
    }

    #[test]
    fn every_variable_is_explained_once() {
        let mut names: Vec<&str> = LEGACY.iter().map(|legacy| legacy.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LEGACY.len());
        let aliases = || super::super::TABLE.iter().flat_map(|key| key.aliases);
        assert!(aliases().all(|alias| !names.contains(alias)), "a variable that is read needs no explanation");
    }
}
