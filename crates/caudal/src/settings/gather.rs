//! Gathers what is said of each setting, and where it was said.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use caudal_types::nearest;

use super::{
    Key, TABLE, database, injected,
    legacy::{self, Notice},
    mask,
    presets::{PRESETS, preset},
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// A variable of the environment.
    Variable(String),
    /// The settings file.
    File(PathBuf),
    /// The preset of this name.
    Preset(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What is said of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// What was gathered.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Every setting of the table, in its order.
    pub(crate) values: Vec<Raw>,
    /// What is to be said of variables that have no effect, or another one than they seem to.
    pub(crate) notices: Vec<Notice>,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("the settings file {0} cannot be read: {1}")]
    Unreadable(PathBuf, String),
    /// The file is not a list of keys and values.
    #[error("the settings file {0} is not YAML with a value for each key: {1}")]
    NotYaml(PathBuf, String),
    /// A key or variable that is no setting.
    #[error("{0} is not a setting{1}")]
    Unknown(String, String),
    /// A value that cannot be.
    #[error("{key} = {:?} (from {origin}): {reason}", mask::shown(.key, .value))]
    Invalid {
        /// Which setting.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// Where.
        origin: Origin,
        /// Why not.
        reason: String,
    },
    /// A variable of an older system that asks for what is not here.
    #[error("${name} is set and not supported: elsewhere it {effect}; here {here}")]
    Refused {
        /// The variable.
        name: String,
        /// What it does in its own system.
        effect: &'static str,
        /// What to do instead.
        here: &'static str,
    },
}

fn meant(name: &str) -> String {
    let found = nearest(name, TABLE.iter().map(|key| key.name));
    found.map_or_else(|| "; `caudal config` lists them all".to_owned(), |name| format!("; did you mean {name:?}?"))
}

/// Gathers every setting from `flags`, `environment`, the file at `file` and the defaults.
///
/// A `file` that was asked for must exist; `caudal.yaml` in the working folder is read if it is there.
pub(crate) fn gather(
    flags: &BTreeMap<&'static str, String>,
    environment: &BTreeMap<String, String>,
    file: Option<&Path>,
) -> Result<Gathered, SettingsError> {
    let (path, in_file) = read_file(file)?;
    refuse_unknown_variables(environment)?;
    let translated = legacy::translate(environment);
    let said = |key: &'static Key| -> (String, Origin) {
        if let Some(value) = flags.get(key.name) {
            return (value.clone(), Origin::Flag(key.flag()));
        }
        if let Some(found) = in_environment(key, environment) {
            return found;
        }
        if let Some((_, value, variable)) = translated.iter().find(|(name, ..)| *name == key.name) {
            return ((*value).to_owned(), Origin::Variable((*variable).to_owned()));
        }
        match in_file.get(key.name) {
            Some(value) => (value.clone(), Origin::File(path.clone())),
            None => (key.default.to_owned(), Origin::Default),
        }
    };
    let mut values: Vec<Raw> = TABLE
        .iter()
        .map(|key| {
            let (value, origin) = said(key);
            Raw { key: key.name, value, origin }
        })
        .collect();
    apply_preset(&mut values)?;
    let notices = notices(&values, environment)?;
    Ok(Gathered { values, notices })
}

/// What the environment says of a setting, by its own variable or by a familiar name.
fn in_environment(key: &'static Key, environment: &BTreeMap<String, String>) -> Option<(String, Origin)> {
    let own = key.variable();
    let names = std::iter::once(own.as_str()).chain(key.aliases.iter().copied());
    names.filter_map(|name| Some((name, environment.get(name)?))).find_map(|(name, value)| {
        // A familiar name that is empty says nothing, as in `DATABASE_URL=${URL:-}`; nor does a service's address.
        let empty = name != own && (value.trim().is_empty() || key.is_list() && value.trim() == "[]");
        if empty || injected::hides_setting(name, value) {
            return None;
        }
        let value = match key.value {
            _ if key.is_list() => comma_separated(value),
            "BOOL" if legacy::is_on(value) => "true".to_owned(),
            "BOOL" if !value.trim().is_empty() && legacy::is_off(value) => "false".to_owned(),
            _ => value.clone(),
        };
        Some((value, Origin::Variable(name.to_owned())))
    })
}

/// A list as settings have it, of one that may be a JSON array, as pydantic reads lists.
fn comma_separated(value: &str) -> String {
    serde_json::from_str::<Vec<String>>(value).map_or_else(|_| value.to_owned(), |items| items.join(","))
}

/// What is to be said of the environment.
fn notices(values: &[Raw], environment: &BTreeMap<String, String>) -> Result<Vec<Notice>, SettingsError> {
    let value = |key: &str| values.iter().find(|raw| raw.key == key).map_or("", |raw| raw.value.trim());
    let variables = values.iter().filter_map(|raw| match &raw.origin {
        Origin::Variable(name) => Some(name.as_str()),
        _ => None,
    });
    let read: Vec<&str> = variables.collect();
    let mut notices = legacy::notices(environment, &read, &value)?;
    notices.extend(database::notice(values));
    notices.extend(services(environment));
    Ok(notices)
}

/// One notice for all variables that Kubernetes or Docker set; a warning where one has a setting's name.
fn services(environment: &BTreeMap<String, String>) -> Option<Notice> {
    let is_setting = |name: &str| TABLE.iter().any(|key| key.variable() == name || key.aliases.contains(&name));
    let hides = |(name, value): &(&String, &String)| is_setting(name) && injected::hides_setting(name, value);
    let hidden: Vec<String> = environment.iter().filter(hides).map(|(name, _)| format!("${name}")).collect();
    if let Some(name) = hidden.first() {
        let text = format!(
            "{} was set by Kubernetes or Docker for a service of that name, and is not taken for the setting; \
             `enableServiceLinks: false` in the pod keeps such variables out",
            hidden.join(", ")
        );
        return Some(Notice { name: name.trim_start_matches('$').to_owned(), warns: true, text });
    }
    let injected = |(name, value): &(&String, &String)| injected::is_injected(name, value, environment);
    let (name, _) = environment.iter().find(injected)?;
    let text = format!("${name} and its like were set by Kubernetes or Docker for a service, and are ignored");
    Some(Notice { name: name.clone(), warns: false, text })
}

/// Sets what the preset sets, where nobody said otherwise.
fn apply_preset(values: &mut [Raw]) -> Result<(), SettingsError> {
    let Some(asked) = values.iter().find(|raw| raw.key == "preset" && !raw.value.is_empty()).cloned() else {
        return Ok(());
    };
    let preset = preset(&asked.value).ok_or_else(|| SettingsError::Invalid {
        reason: format!("there are {}", PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")),
        key: "preset",
        value: asked.value,
        origin: asked.origin,
    })?;
    for raw in values.iter_mut().filter(|raw| raw.origin == Origin::Default) {
        if let Some((_, value)) = preset.values.iter().find(|(key, _)| *key == raw.key) {
            (raw.value, raw.origin) = ((*value).to_owned(), Origin::Preset(preset.name));
        }
    }
    Ok(())
}

fn read_file(asked: Option<&Path>) -> Result<(PathBuf, BTreeMap<String, String>), SettingsError> {
    let path = asked.unwrap_or(Path::new("caudal.yaml")).to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if asked.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(SettingsError::Unreadable(path, error.to_string())),
    };
    let values = parse(&text, &path)?;
    Ok((path, values))
}

fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, String>, SettingsError> {
    let not_yaml = |reason: String| SettingsError::NotYaml(path.to_owned(), reason);
    let parsed: Option<BTreeMap<String, serde_norway::Value>> =
        serde_norway::from_str(caudal_types::without_mark(text)).map_err(|error| not_yaml(error.to_string()))?;
    let mut values = BTreeMap::new();
    for (name, value) in parsed.unwrap_or_default() {
        if !TABLE.iter().any(|key| key.name == name) {
            return Err(SettingsError::Unknown(format!("the key {name:?} in {}", path.display()), meant(&name)));
        }
        let text = match value {
            serde_norway::Value::String(text) => text,
            serde_norway::Value::Number(number) => number.to_string(),
            serde_norway::Value::Bool(flag) => flag.to_string(),
            serde_norway::Value::Null => continue,
            _ => return Err(not_yaml(format!("{name} is a list or a table"))),
        };
        values.insert(name, text);
    }
    Ok(values)
}

/// Variables that are ours and yet no setting: where things lie, and what the suite's own tools read.
const OTHER_VARIABLES: [&str; 2] = ["CAUDAL_CACHE_DIR", "CAUDAL_CONFIG"];

fn refuse_unknown_variables(environment: &BTreeMap<String, String>) -> Result<(), SettingsError> {
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("CAUDAL_")) {
        let known = TABLE.iter().any(|key| key.variable() == *name)
            || OTHER_VARIABLES.contains(&name.as_str())
            || injected::is_injected(name, value, environment);
        // Tests of this house mark their processes.
        if !known && !name.starts_with("CAUDAL_TEST_") {
            let bare = name.trim_start_matches("CAUDAL_").to_lowercase();
            return Err(SettingsError::Unknown(format!("the variable {name}"), meant(&bare)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn gather_with(
        flags: &[(&'static str, &str)],
        variables: &[(&str, &str)],
        file: &str,
    ) -> Result<Gathered, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("caudal.yaml");
        fs::write(&path, file).unwrap();
        let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        gather(&flags, &environment(variables), Some(&path))
    }

    fn value(gathered: &Gathered, key: &str) -> (String, String) {
        let raw = gathered.values.iter().find(|raw| raw.key == key).unwrap();
        let origin = match &raw.origin {
            Origin::File(_) => "file".to_owned(),
            origin => origin.to_string(),
        };
        (raw.value.clone(), origin)
    }

    fn check(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str, expected: (&str, &str)) {
        let gathered = gather_with(flags, variables, file).unwrap();
        assert_eq!(value(&gathered, "http_port"), (expected.0.to_owned(), expected.1.to_owned()));
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
        check(&[], &[], "", ("8000", "default"));
        check(&[], &[], "http_port: 1", ("1", "file"));
        check(&[], &[("PORT", "2")], "http_port: 1", ("2", "$PORT"));
        check(&[], &[("PORT", "2"), ("CAUDAL_HTTP_PORT", "3")], "http_port: 1", ("3", "$CAUDAL_HTTP_PORT"));
        check(&[("http_port", "4")], &[("CAUDAL_HTTP_PORT", "3")], "http_port: 1", ("4", "--http-port"));
    }

    fn refused(variables: &[(&str, &str)], file: &str, words: &str) {
        let error = gather_with(&[], variables, file).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_one_that_was_meant() {
        refused(&[], "htp_port: 1", "did you mean \"http_port\"?");
        refused(&[("CAUDAL_MAX_BATCHSIZE", "1")], "", "did you mean \"max_batch_size\"?");
        refused(&[], "colour: red", "`caudal config` lists them all");
        refused(&[], "- a\n- b", "not YAML");
        refused(&[], "host: [1, 2]", "a list or a table");
        refused(&[("USE_TENSORRT", "True")], "", "providers: tensorrt");
    }

    #[test]
    fn names_without_effect_are_accepted_and_explained() {
        let gathered = gather_with(&[], &[("WORKERS", "8"), ("USE_TENSORRT", "false")], "").unwrap();
        assert_eq!(gathered.notices.iter().map(|notice| notice.name.as_str()).collect::<Vec<_>>(), ["WORKERS"]);
    }

    #[test]
    fn familiar_names_are_read_where_there_is_an_equivalent() {
        let variables = [
            ("MAX_BATCH_SIZE", "64"),
            ("BATCH_TIMEOUT_MS", "10"),
            ("METRICS_ENABLED", "0"),
            ("AUTO_MEMORY_CLEANUP", "False"),
            ("LOG_FORMAT", "JSON"),
            ("FLUJO_STATE_MODE", "memory"),
            ("DB_POOL_SIZE", ""),
            ("API_DOCS_ENABLED", "False"),
            ("ALLOWED_HOSTS", r#"["ai.example", "*.clinic.example"]"#),
            ("ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ];
        let gathered = gather_with(&[], &variables, "db_pool_size: 7").unwrap();
        for (key, expected) in [
            ("max_batch_size", "64"),
            ("max_queue_delay_ms", "10"),
            ("metrics_enabled", "false"),
            ("memory_auto_cleanup", "false"),
            ("log_format", "json"),
            ("flow_durable", "false"),
            ("db_pool_size", "7"),
            ("api_docs_enabled", "false"),
            ("allowed_hosts", "ai.example,*.clinic.example"),
            ("cors_allowed_origins", "https://a.example,https://b.example"),
        ] {
            assert_eq!(value(&gathered, key).0, expected, "{key}");
        }
        assert_eq!(gathered.notices, []);
    }

    #[test]
    fn lists_are_read_as_json_or_separated_by_commas() {
        for (given, expected) in [
            ("a.example, b.example", "a.example, b.example"),
            (r#"["*"]"#, "*"),
            ("*", "*"),
            ("[::1]", "[::1]"),
            ("[]", "from.file.example"),
            (" ", "from.file.example"),
        ] {
            let gathered = gather_with(&[], &[("ALLOWED_HOSTS", given)], "allowed_hosts: from.file.example").unwrap();
            assert_eq!(value(&gathered, "allowed_hosts").0, expected, "{given}");
            assert_eq!(gathered.notices, [], "{given}");
        }
        let own = gather_with(&[], &[("CAUDAL_ALLOWED_HOSTS", r#"["a.example","b.example"]"#)], "").unwrap();
        assert_eq!(value(&own, "allowed_hosts").0, "a.example,b.example");
    }

    #[test]
    fn order_for_https_is_refused_unless_a_proxy_terminates_tls() {
        refused(&[("ENFORCE_HTTPS", "true")], "", "set tls_terminated_by_proxy: true");
        for enforce in [&[("ENFORCE_HTTPS", "false")][..], &[]] {
            assert!(gather_with(&[], enforce, "").is_ok());
        }
        let gathered = gather_with(&[], &[("ENFORCE_HTTPS", "True")], "tls_terminated_by_proxy: true").unwrap();
        assert_eq!(gathered.notices, []);
    }

    #[test]
    fn keys_of_users_are_refused_by_the_address_that_is_in_effect() {
        let key = [("JWT_SECRET", "s3cret")];
        refused(&key, "host: 0.0.0.0", "keep host at 127.0.0.1 behind an authenticating proxy");
        let gathered = gather_with(&[("host", "127.0.0.1")], &key, "host: 0.0.0.0").unwrap();
        assert!(matches!(&gathered.notices[..], [notice] if notice.warns), "{:?}", gathered.notices);
    }

    #[test]
    fn service_variables_of_kubernetes_are_ignored_and_mentioned_once() {
        let plain = [
            ("CAUDAL_PORT", "tcp://10.0.0.1:8000"),
            ("CAUDAL_SERVICE_HOST", "10.0.0.1"),
            ("CAUDAL_SERVICE_PORT_HTTP", "8000"),
            ("CAUDAL_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ];
        let gathered = gather_with(&[], &plain, "").unwrap();
        assert_eq!(gathered.notices.iter().map(|notice| notice.warns).collect::<Vec<_>>(), [false]);
        let admin = [("CAUDAL_ADMIN_PORT", "tcp://10.0.0.2:9000"), ("CAUDAL_HTTP_PORT", "tcp://10.0.0.3:80")];
        let gathered = gather_with(&[], &admin, "admin_port: 9001").unwrap();
        assert_eq!(value(&gathered, "admin_port"), ("9001".to_owned(), "file".to_owned()));
        assert_eq!(value(&gathered, "http_port"), ("8000".to_owned(), "default".to_owned()));
        let [notice] = &gathered.notices[..] else { panic!("{:?}", gathered.notices) };
        assert!(notice.warns && notice.text.contains("$CAUDAL_ADMIN_PORT, $CAUDAL_HTTP_PORT was set"), "{notice:?}");
        refused(&[("CAUDAL_PORT", "8000")], "", "the variable CAUDAL_PORT is not a setting");
    }

    #[test]
    fn unused_database_address_is_mentioned_without_its_password() {
        let url = ("DATABASE_URL", "postgresql+asyncpg://nexus:pa55@db/nexus");
        let gathered = gather_with(&[], &[url], "").unwrap();
        let [notice] = &gathered.notices[..] else { panic!("{:?}", gathered.notices) };
        assert!(notice.warns && notice.text.contains("data_dir") && !notice.text.contains("pa55"), "{notice:?}");
        assert_eq!(gather_with(&[], &[url], "data_dir: data").unwrap().notices, []);
        let sqlite = [("DATABASE_URL", "sqlite:///./app.db")];
        let gathered = gather_with(&[], &sqlite, "data_dir: data").unwrap();
        assert!(gathered.notices[0].text.contains("caudal.db in data_dir"), "{:?}", gathered.notices);
    }

    #[test]
    fn a_preset_stands_behind_everything_that_is_said() {
        let gathered = gather_with(&[("max_queue_size", "7")], &[], "preset: low-memory").unwrap();
        assert_eq!(value(&gathered, "instances"), ("1".to_owned(), "preset low-memory".to_owned()));
        assert_eq!(value(&gathered, "max_queue_size"), ("7".to_owned(), "--max-queue-size".to_owned()));
        assert_eq!(value(&gathered, "http_port"), ("8000".to_owned(), "default".to_owned()));
        refused(&[], "preset: huge", "there are cpu, low-memory, many-users, gpu");
    }

    #[test]
    fn every_preset_resolves() {
        for preset in PRESETS {
            let known = |(key, _): &(&str, &str)| TABLE.iter().any(|entry| entry.name == *key);
            assert!(preset.values.iter().all(known), "{preset:?}");
            let gathered = gather_with(&[("preset", preset.name)], &[], "").unwrap();
            let resolved = crate::settings::Settings::resolve(&gathered.values);
            assert!(resolved.is_ok(), "{preset:?}");
        }
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let error = gather(&BTreeMap::new(), &BTreeMap::new(), Some(Path::new("/nowhere.yaml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere.yaml cannot be read"), "{error}");
    }
}
