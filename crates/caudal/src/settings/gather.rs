//! Gathers what is said of each setting, and where it was said.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use caudal_types::nearest;

use super::{
    Key, TABLE,
    legacy::LEGACY,
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
    /// Variables of older systems that were found and have no effect, with the reason.
    pub(crate) idle: Vec<(&'static str, &'static str)>,
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
    #[error("{key} = {value:?} (from {origin}): {reason}")]
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
    #[error("${0} asks for what cannot be had: {1}; unset it")]
    Refused(&'static str, &'static str),
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
    let said = |key: &'static Key| -> (String, Origin) {
        if let Some(value) = flags.get(key.name) {
            return (value.clone(), Origin::Flag(key.flag()));
        }
        let names = std::iter::once(key.variable()).chain(key.aliases.iter().map(|alias| (*alias).to_owned()));
        for name in names {
            // OpenTelemetry has it that one of its own that is empty says nothing.
            if let Some(value) = environment.get(&name).filter(|value| !value.is_empty() || !name.starts_with("OTEL_"))
            {
                return (value.clone(), Origin::Variable(name));
            }
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
    Ok(Gathered { values, idle: idle_variables(environment)? })
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
    for name in environment.keys().filter(|name| name.starts_with("CAUDAL_")) {
        let known = TABLE.iter().any(|key| key.variable() == *name) || OTHER_VARIABLES.contains(&name.as_str());
        // Tests of this house mark their processes.
        if !known && !name.starts_with("CAUDAL_TEST_") {
            let bare = name.trim_start_matches("CAUDAL_").to_lowercase();
            return Err(SettingsError::Unknown(format!("the variable {name}"), meant(&bare)));
        }
    }
    Ok(())
}

fn idle_variables(environment: &BTreeMap<String, String>) -> Result<Vec<(&'static str, &'static str)>, SettingsError> {
    let mut idle = Vec::new();
    for legacy in LEGACY {
        let Some(value) = environment.get(legacy.name) else { continue };
        if legacy.refused.contains(&value.to_lowercase().as_str()) {
            return Err(SettingsError::Refused(legacy.name, legacy.why));
        }
        idle.push((legacy.name, legacy.why));
    }
    Ok(idle)
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
        assert_eq!(gathered.idle.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["WORKERS", "USE_TENSORRT"]);
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
