//! Triton's `config.pbtxt`, translated to the equivalent `model.yaml`.
//!
//! Field names and meanings: Triton's `model_config.proto`.

mod text;

use std::collections::BTreeMap;

use caudal_types::{Priority, nearest};
use serde_norway::{Mapping, Value};

use text::{Scalar, TextMessage};

/// The content of a `config.pbtxt` in terms of `model.yaml`.
#[derive(Debug, PartialEq)]
pub(super) struct Translated {
    /// The settings.
    pub(super) settings: Value,
    /// Fields of Triton without effect here.
    pub(super) idle: Vec<&'static str>,
}

/// Fields that are detected automatically here, or that have no equivalent setting.
const IGNORED_FIELDS: &[&str] = &[
    "backend",
    "cc_model_filenames",
    "metric_tags",
    "model_metrics",
    "model_operations",
    "model_repository_agents",
    "model_warmup",
    "optimization",
    "platform",
    "response_cache",
    "runtime",
];

const TRANSLATED_FIELDS: &[&str] = &[
    "default_model_filename",
    "dynamic_batching",
    "input",
    "instance_group",
    "max_batch_size",
    "model_transaction_policy",
    "name",
    "output",
    "parameters",
    "version_policy",
];

const UNSUPPORTED_FIELDS: &[&str] = &["ensemble_scheduling", "sequence_batching"];

const DYNAMIC_BATCHING: &[&str] = &[
    "default_priority_level",
    "default_queue_policy",
    "max_queue_delay_microseconds",
    "preferred_batch_size",
    "preserve_ordering",
    "priority_levels",
    "priority_queue_policy",
];

const QUEUE_POLICY: &[&str] =
    &["allow_timeout_override", "default_timeout_microseconds", "max_queue_size", "timeout_action"];

/// Translates the `config.pbtxt` of the model in the folder `name`.
pub(super) fn translate_config(text: &str, name: &str) -> Result<Translated, String> {
    let config = text::parse_text(text)?;
    let all: Vec<&'static str> =
        TRANSLATED_FIELDS.iter().chain(IGNORED_FIELDS).chain(UNSUPPORTED_FIELDS).copied().collect();
    check_known_fields(&config, &all, "")?;
    check(&config, name)?;
    let mut settings = YamlSettings::default();
    translate_batching(&config, &mut settings)?;
    if let Some(versions) =
        config.message_field("version_policy")?.map(|policy| policy.message_field("specific")).transpose()?
    {
        let newest = versions.map(|policy| policy.unsigned_values("versions")).transpose()?.unwrap_or_default();
        settings.set_value("version", newest.into_iter().max());
    }
    let groups = config.message_values("instance_group")?;
    let count = |group: &&TextMessage| Ok(group.unsigned_field("count")?.unwrap_or(1));
    let counts = groups.iter().map(count).collect::<Result<Vec<u64>, String>>()?;
    settings.set_value("instances", Some(counts.iter().sum::<u64>()).filter(|sum| *sum > 0));
    let kinds = groups.iter().map(|group| group.word_field("kind")).collect::<Result<Vec<_>, _>>()?;
    settings.set_value("providers", kinds.contains(&Some("KIND_GPU")).then(|| vec!["cuda"]));
    for parameter in config.message_values("parameters")? {
        if parameter.string_field("key")? == Some("intra_op_thread_count") {
            let value = parameter
                .message_field("value")?
                .map(|value| value.string_field("string_value"))
                .transpose()?
                .flatten();
            let threads: Option<u64> = value.and_then(|value| value.parse().ok());
            settings.set_value("threads", threads.filter(|threads| *threads > 0));
        }
    }
    for output in config.message_values("output")? {
        settings.set_value("labels", output.string_field("label_filename")?);
    }
    if let [input] = &config.message_values("input")?[..] {
        settings.section_mut("preprocessing").set_value("size", image_size(&input.integer_values("dims")?));
    }
    let idle = IGNORED_FIELDS.iter().copied().filter(|field| config.has_field(field)).collect();
    Ok(Translated { settings: settings.into(), idle })
}

/// A section of settings under construction.
#[derive(Default)]
struct YamlSettings {
    own: Mapping,
    sections: BTreeMap<&'static str, YamlSettings>,
}

impl YamlSettings {
    fn set_value(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.own.insert(key.into(), value.into());
        }
    }

    fn section_mut(&mut self, key: &'static str) -> &mut Self {
        self.sections.entry(key).or_default()
    }
}

impl From<YamlSettings> for Value {
    fn from(settings: YamlSettings) -> Self {
        let mut own = settings.own;
        for (key, section) in settings.sections {
            let section = Self::from(section);
            if section.as_mapping().is_some_and(|section| !section.is_empty()) {
                own.insert(key.into(), section);
            }
        }
        Self::Mapping(own)
    }
}

/// Refuses fields that are not among `fields`.
fn check_known_fields(message: &TextMessage, fields: &[&str], within: &str) -> Result<(), String> {
    let Some(field) = message.field_names().find(|name| !fields.contains(name)) else { return Ok(()) };
    let meant = nearest(field, fields.iter().copied());
    let meant = meant.map_or_else(String::new, |field| format!("; did you mean {field:?}?"));
    Err(format!("the field {:?} is not known{meant}", format!("{within}{field}")))
}

fn check(config: &TextMessage, name: &str) -> Result<(), String> {
    if let Some(other) = config.string_field("name")?.filter(|other| *other != name) {
        return Err(format!("name is {other:?}, and the folder is {name:?}"));
    }
    if let Some(field) = UNSUPPORTED_FIELDS.iter().find(|field| config.has_field(field)) {
        return Err(format!("{field} is not served here"));
    }
    for field in ["backend", "platform"] {
        let said = config.string_field(field)?.filter(|said| !said.is_empty());
        if let Some(other) = said.filter(|said| !said.starts_with("onnxruntime")) {
            return Err(format!("{field} is {other:?}; only ONNX models are served here"));
        }
    }
    if let Some(file) = config.string_field("default_model_filename")?.filter(|file| *file != "model.onnx") {
        return Err(format!("default_model_filename is {file:?}; rename the file to model.onnx"));
    }
    let policy = config.message_field("model_transaction_policy")?;
    if policy.map(|policy| policy.bool_field("decoupled")).transpose()?.flatten().unwrap_or_default() {
        return Err("model_transaction_policy.decoupled is not served here".to_owned());
    }
    Ok(())
}

fn translate_batching(config: &TextMessage, settings: &mut YamlSettings) -> Result<(), String> {
    let batching = settings.section_mut("batching");
    // 0: the model has no batch dimension.
    batching.set_value("max_batch_size", config.unsigned_field("max_batch_size")?.map(|size| size.max(1)));
    let Some(dynamic) = config.message_field("dynamic_batching")? else { return Ok(()) };
    check_known_fields(dynamic, DYNAMIC_BATCHING, "dynamic_batching.")?;
    let preferred = dynamic.unsigned_values("preferred_batch_size")?;
    batching.set_value("preferred_batch_size", Some(preferred).filter(|sizes| !sizes.is_empty()));
    let delay = dynamic.unsigned_field("max_queue_delay_microseconds")?;
    batching.set_value("max_queue_delay_ms", delay.map(|micros| micros as f64 / 1e3));
    batching.set_value("preserve_ordering", dynamic.bool_field("preserve_ordering")?.filter(|ordered| *ordered));
    let mut policies: BTreeMap<String, Value> = BTreeMap::new();
    if let Some(policy) = dynamic.message_field("default_queue_policy")? {
        let policy = translate_queue_policy(policy)?;
        policies.extend(Priority::ALL.map(|priority| (priority.to_string(), policy.clone())));
    }
    for entry in dynamic.message_values("priority_queue_policy")? {
        let level = entry.unsigned_field("key")?.unwrap_or_default();
        if let Some(policy) = entry.message_field("value")? {
            policies.insert(Priority::from_level(level).to_string(), translate_queue_policy(policy)?);
        }
    }
    let policies: Mapping = policies.into_iter().map(|(name, policy)| (name.into(), policy)).collect();
    batching.set_value("queue_policy", Some(policies).filter(|policies| !policies.is_empty()).map(Value::Mapping));
    Ok(())
}

fn translate_queue_policy(policy: &TextMessage) -> Result<Value, String> {
    check_known_fields(policy, QUEUE_POLICY, "dynamic_batching.queue_policy.")?;
    let mut settings = YamlSettings::default();
    let above_0 = |field| Ok::<_, String>(policy.unsigned_field(field)?.filter(|number| *number > 0));
    settings.set_value("max_queue_size", above_0("max_queue_size")?);
    settings.set_value("timeout_ms", above_0("default_timeout_microseconds")?.map(|micros| micros as f64 / 1e3));
    settings.set_value("timeout_action", policy.word_field("timeout_action")?.map(str::to_lowercase));
    Ok(settings.into())
}

/// Width and height of the image input with `dims`, without or with a batch dimension.
fn image_size(dims: &[i64]) -> Option<Vec<u64>> {
    let row = if let [_, row @ ..] = dims
        && dims.len() == 4
    {
        row
    } else {
        dims
    };
    let (height, width) = match row {
        [3, height, width] | [height, width, 3] => (*height, *width),
        _ => return None,
    };
    Some(vec![u64::try_from(width).ok()?, u64::try_from(height).ok()?])
}

impl TextMessage {
    fn unsigned_field(&self, name: &str) -> Result<Option<u64>, String> {
        Ok(self.unsigned_values(name)?.pop())
    }

    fn unsigned_values(&self, name: &str) -> Result<Vec<u64>, String> {
        let negative = |number: i64| u64::try_from(number).map_err(|_| format!("{name} is not below 0"));
        self.integer_values(name)?.into_iter().map(negative).collect()
    }

    fn integer_values(&self, name: &str) -> Result<Vec<i64>, String> {
        let number = |scalar: &Scalar| match scalar {
            Scalar::Word(word) => word.parse().map_err(|_| format!("{name} is a whole number, not {word}")),
            Scalar::Text(_) => Err(format!("{name} is a whole number, not a text")),
        };
        self.scalar_values(name)?.into_iter().map(number).collect()
    }

    fn word_field(&self, name: &str) -> Result<Option<&str>, String> {
        match self.scalar_values(name)?.pop() {
            None => Ok(None),
            Some(Scalar::Word(word)) => Ok(Some(word)),
            Some(Scalar::Text(_)) => Err(format!("{name} is a word without quotes")),
        }
    }

    fn bool_field(&self, name: &str) -> Result<Option<bool>, String> {
        let flag = |word: &str| match word {
            "true" | "True" | "t" | "1" => Ok(true),
            "false" | "False" | "f" | "0" => Ok(false),
            other => Err(format!("{name} is true or false, not {other}")),
        };
        self.word_field(name)?.map(flag).transpose()
    }

    fn string_field(&self, name: &str) -> Result<Option<&str>, String> {
        match self.scalar_values(name)?.pop() {
            None => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(Scalar::Word(word)) => Err(format!("{name} is a text in quotes, not {word}")),
        }
    }

    fn message_field(&self, name: &str) -> Result<Option<&TextMessage>, String> {
        Ok(self.message_values(name)?.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in Triton's own examples.
    const CONFIG: &str = r#"
        name: "m"  # as the folder
        platform: "onnxruntime_onnx"
        max_batch_size : 8
        input [ { name: "images", data_type: TYPE_FP32, dims: [ 3, 480, 640 ] } ]
        output [ { name: "output0" data_type: TYPE_FP32 dims: [ 84, -1 ] label_filename: 'labels' '.txt' } ]
        instance_group [ { count: 2 kind: KIND_CPU }, { } ];
        version_policy: { specific: { versions: [1, 3] } }
        dynamic_batching {
          preferred_batch_size: [ 4, 8 ]
          max_queue_delay_microseconds: 100
          preserve_ordering: true
          priority_levels: 2
          default_queue_policy { max_queue_size: 7 }
          priority_queue_policy { key: 3 value: { timeout_action: DELAY default_timeout_microseconds: 2500 } }
        }
        parameters { key: "intra_op_thread_count" value: { string_value: "4" } }
        optimization { graph { level: 1 } }
    "#;

    #[test]
    fn config_pbtxt_translates_to_model_yaml() {
        let translated = translate_config(CONFIG, "m").unwrap();
        let expected = "
version: 3
instances: 3
threads: 4
labels: labels.txt
batching:
  max_batch_size: 8
  preferred_batch_size: [4, 8]
  max_queue_delay_ms: 0.1
  preserve_ordering: true
  queue_policy:
    high: {max_queue_size: 7}
    low: {timeout_ms: 2.5, timeout_action: delay}
    normal: {max_queue_size: 7}
preprocessing: {size: [640, 480]}
";
        assert_eq!(translated.settings, serde_norway::from_str::<Value>(expected).unwrap());
        assert_eq!(translated.idle, ["optimization", "platform"]);
    }

    #[test]
    fn unsupported_config_is_refused() {
        let check = |text: &str, words: &str| {
            let error = translate_config(text, "m").unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("max_batchsize: 8", r#"the field "max_batchsize" is not known; did you mean "max_batch_size"?"#);
        check("dynamic_batching { delay: 1 }", r#""dynamic_batching.delay" is not known"#);
        check("name: \"other\"", "the folder is \"m\"");
        check("backend: \"python\"", "only ONNX models are served here");
        check("sequence_batching { }", "sequence_batching is not served here");
        check("model_transaction_policy { decoupled: true }", "decoupled is not served here");
        check("max_batch_size: -1", "max_batch_size is not below 0");
        check("max_batch_size: \"8\"", "a whole number, not a text");
        check("max_batch_size: 8 }", "line 1");
        check("input [ { dims: [ 3, } ]", "line 1");
        check("\n\ninput {", "line 3");
        check("a: 'b", "has no end");
    }

    #[test]
    fn gpu_instance_group_selects_cuda() {
        let translated = translate_config("instance_group { kind: KIND_GPU }", "m").unwrap();
        assert_eq!(translated.settings, serde_norway::from_str::<Value>("{instances: 1, providers: [cuda]}").unwrap());
    }

    #[test]
    fn empty_config_translates_to_nothing() {
        let translated = translate_config("# nothing\n", "m").unwrap();
        assert_eq!(translated, Translated { settings: Value::Mapping(Mapping::new()), idle: Vec::new() });
    }
}
