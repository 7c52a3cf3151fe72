//! `model.yaml`: settings of a model that its file does not contain. Every key is optional.

use std::{path::Path, sync::LazyLock};

use caudal_types::{Priority, nearest};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Deserialize;
use serde_norway::Value;

use super::{confinement::read_text, triton};
use crate::{GraphOptimization, Precision, Provider};

/// The settings of one model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The model's task: `detect`, `classify`, `segment`, `embed` or `tensors`. Detected from names and shapes when absent.
    pub kind: Option<String>,
    /// The layout of its outputs, such as `yolov8`. Detected when absent.
    pub family: Option<String>,
    /// Class names: a list, or the name of a file beside `model.yaml` with one name per line. When absent, `labels.txt` if it exists.
    pub labels: Option<Labels>,
    /// The function that converts a classifier's scores to probabilities: `softmax`, `sigmoid`, or `none` if the graph contains it. Detected when absent.
    pub activation: Option<Activation>,
    /// Other names of the model.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The served version; the newest when absent.
    pub version: Option<u64>,
    /// Default thresholds of requests.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// Conversion of an image to the model's input.
    #[serde(default)]
    pub preprocessing: Preprocessing,
    /// Conversion of a text to an embedding.
    #[serde(default)]
    pub embedding: Embedding,
    /// Joining of requests into batches.
    #[serde(default)]
    pub batching: Batching,
    /// Number of concurrent instances.
    pub instances: Option<usize>,
    /// Threads per run.
    pub threads: Option<usize>,
    /// Shadow validation: a new version is served only if it passes. Immediately when absent.
    pub prove: Option<ShadowValidation>,
    /// Execution providers: the first that works is used. The server's default when absent.
    pub providers: Option<Vec<Provider>>,
    /// Precision of the computation, if the provider supports several.
    pub precision: Option<Precision>,
    /// Level of graph optimization.
    #[serde(default)]
    pub graph_optimization: GraphOptimization,
}

/// Shadow validation of a new version before it replaces the served one.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowValidation {
    /// Number of the latest runs whose inputs are recorded for a new version to answer.
    pub inputs: usize,
    /// Allowed deviation of each output value, relative if it is above 1.
    pub tolerance: f64,
    /// Allowed factor of the run time.
    pub max_slowdown: f64,
}

impl Default for ShadowValidation {
    fn default() -> Self {
        Self { inputs: 16, tolerance: 0.001, max_slowdown: 1.5 }
    }
}

/// Class names, or their file.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Labels {
    /// The names, in the order of classes.
    List(Vec<String>),
    /// A text file beside `model.yaml`, one name per line.
    File(String),
}

/// The function that converts scores to probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exactly one class applies.
    Softmax,
    /// Each class applies independently.
    Sigmoid,
    /// The graph contains the function.
    None,
}

/// Default thresholds of a detector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Lowest confidence, 0 to 1.
    pub conf: Option<f32>,
    /// IoU threshold of non-maximum suppression, 0 to 1.
    pub iou: Option<f32>,
    /// Maximum number of boxes.
    pub max_det: Option<usize>,
}

/// Conversion of an image to the model's input: resizing, then `(pixel * scale - mean) / std`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// `[width, height]`, for models with free input sizes.
    pub size: Option<[usize; 2]>,
    /// `letterbox` (keep the aspect ratio, centre, pad the rest), `corner` (the same in the upper left corner) or `stretch`.
    pub fit: Option<ResizeMode>,
    /// `full`, or `reduced`: large JPEGs are decoded at a fraction of their size.
    pub decode: Option<JpegDecoding>,
    /// Grey value of the padding, 114 as YOLO's trainers use.
    pub pad: Option<u8>,
    /// Order of the colour channels, `rgb` when absent.
    pub color: Option<ChannelOrder>,
    /// Factor for 8-bit values, 1/255 when absent.
    pub scale: Option<f32>,
    /// Per channel, in the order of `color`; 0 when absent.
    pub mean: Option<[f32; 3]>,
    /// Per channel, in the order of `color`; 1 when absent.
    pub std: Option<[f32; 3]>,
}

/// Resizing of an image to the model's input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// Keep the aspect ratio and pad the rest, centred.
    Letterbox,
    /// Keep the aspect ratio and pad the rest, in the upper left corner.
    Corner,
    /// Stretch to the whole input.
    Stretch,
}

/// Decoding of large JPEGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JpegDecoding {
    /// Every pixel.
    Full,
    /// At a half, a quarter or an eighth of its sides, as long as that is at least one and a half times the input size.
    Reduced,
}

/// Order of colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ChannelOrder {
    Rgb,
    Bgr,
}

/// Conversion of a text to an embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Pooling of the token vectors; `mean` when absent.
    pub pooling: Option<Pooling>,
    /// Whether vectors are normalized to length 1; true when absent.
    pub normalize: Option<bool>,
    /// Maximum number of tokens of a text; when absent, the limit in `tokenizer.json`, or 512.
    pub max_tokens: Option<usize>,
    /// Whether texts that are too long are truncated if a request does not say; when absent they are refused.
    #[serde(default)]
    pub truncate: bool,
    /// Whether requests may contain token ids of this model's tokenizer in place of texts; when absent they are refused.
    #[serde(default)]
    pub allow_token_ids: bool,
}

/// Pooling of the vectors of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
}

/// Joining of requests into batches; absent keys have the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batching {
    /// Maximum number of rows per run.
    pub max_batch_size: Option<usize>,
    /// Whether rows of several requests share runs: `true` without a trial, `false` never; tried at load when absent.
    pub join_rows: Option<bool>,
    /// Numbers of rows at which a batch leaves immediately.
    #[serde(default)]
    pub preferred_batch_size: Vec<usize>,
    /// Maximum number of tokens per run, padding included, of a text model.
    pub max_batch_tokens: Option<usize>,
    /// How long a free instance waits for more rows, in milliseconds.
    pub max_queue_delay_ms: Option<f64>,
    /// Maximum number of waiting entries.
    pub max_queue_size: Option<usize>,
    /// Maximum size of waiting entries, in MiB.
    pub max_queue_mb: Option<usize>,
    /// Whether responses leave in the order in which their requests were admitted.
    pub preserve_ordering: Option<bool>,
    /// Limits of each priority.
    #[serde(default)]
    pub queue_policy: QueuePolicies,
}

/// Limits of each priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct QueuePolicies {
    pub high: QueuePolicy,
    pub normal: QueuePolicy,
    pub low: QueuePolicy,
}

/// Limits of the requests of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuePolicy {
    /// Maximum number of waiting requests of this priority.
    pub max_queue_size: Option<usize>,
    /// Time after which `timeout_action` is applied, in milliseconds.
    pub timeout_ms: Option<f64>,
    /// `reject` (503), or `delay`: behind all requests that have not waited that long.
    pub timeout_action: Option<TimeoutAction>,
}

/// The action on a request that has waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum TimeoutAction {
    Reject,
    Delay,
}

impl QueuePolicies {
    /// The limits of `priority`.
    pub fn for_priority(&self, priority: Priority) -> &QueuePolicy {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }
}

/// The error in a `model.yaml`.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Io {
        /// The file.
        file: String,
        /// The reason.
        reason: String,
    },
    /// An unknown key.
    #[error("{file} has the unknown key {key:?}{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// The file.
        file: String,
        /// The key, with its parent keys.
        key: String,
        /// A similar known key.
        suggestion: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("{file}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// The value and the reason.
        reason: String,
    },
}

fn did_you_mean(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!("; did you mean {key:?}?"))
}

/// The schema of `model.yaml`, with all tables inlined.
static MODEL_YAML_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<ModelSettings>()
});

/// The settings in a model's folder.
#[derive(Debug, Default)]
pub(super) struct FolderSettings {
    pub(super) settings: ModelSettings,
    /// Fields of `config.pbtxt` without effect here.
    pub(super) idle: Vec<&'static str>,
}

impl ModelSettings {
    /// The JSON schema of `model.yaml`, for editors.
    pub fn json_schema() -> &'static Schema {
        &MODEL_YAML_SCHEMA
    }

    /// Reads the settings of the model `name` in `folder` from `model.yaml` and Triton's `config.pbtxt`; the former
    /// takes precedence. Missing files are ignored.
    pub(super) fn read_folder(folder: &Path, name: &str) -> Result<FolderSettings, SettingsError> {
        let (ours, theirs) = (folder.join("model.yaml"), folder.join("config.pbtxt"));
        let mut said = FolderSettings::default();
        let mut value = Value::Null;
        if let Some(text) = read_optional(folder, &theirs)? {
            let file = theirs.display().to_string();
            let invalid = |reason| SettingsError::Invalid { file: file.clone(), reason };
            let translated = triton::translate_config(&text, name).map_err(invalid)?;
            Self::from_value(translated.settings.clone(), &file)?;
            (value, said.idle) = (translated.settings, translated.idle);
        }
        let file = ours.display().to_string();
        if let Some(text) = read_optional(folder, &ours)? {
            merge_values(&mut value, value_of(&text, &file)?);
        }
        said.settings = Self::from_value(value, &file)?;
        Ok(said)
    }

    /// Parses settings from `text`, the content of `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, SettingsError> {
        Self::from_value(value_of(text, file)?, file)
    }

    /// Overrides thresholds, batching and instances with those of `later` that are set.
    pub fn override_with(&mut self, later: &Self) {
        fn set_if_some<T: Copy>(own: &mut Option<T>, later: Option<T>) {
            *own = later.or(*own);
        }
        set_if_some(&mut self.instances, later.instances);
        set_if_some(&mut self.thresholds.conf, later.thresholds.conf);
        set_if_some(&mut self.thresholds.iou, later.thresholds.iou);
        set_if_some(&mut self.thresholds.max_det, later.thresholds.max_det);
        let (own, later) = (&mut self.batching, &later.batching);
        set_if_some(&mut own.max_batch_size, later.max_batch_size);
        set_if_some(&mut own.max_batch_tokens, later.max_batch_tokens);
        set_if_some(&mut own.max_queue_delay_ms, later.max_queue_delay_ms);
        set_if_some(&mut own.max_queue_size, later.max_queue_size);
        set_if_some(&mut own.max_queue_mb, later.max_queue_mb);
        if !later.preferred_batch_size.is_empty() {
            own.preferred_batch_size.clone_from(&later.preferred_batch_size);
        }
        let (own, later) = (&mut own.queue_policy, &later.queue_policy);
        for (own, later) in [(&mut own.high, &later.high), (&mut own.normal, &later.normal), (&mut own.low, &later.low)]
        {
            set_if_some(&mut own.max_queue_size, later.max_queue_size);
            set_if_some(&mut own.timeout_ms, later.timeout_ms);
            set_if_some(&mut own.timeout_action, later.timeout_action);
        }
    }

    fn from_value(value: Value, file: &str) -> Result<Self, SettingsError> {
        if value.is_null() {
            return Ok(Self::default());
        }
        if let Some((key, suggestion)) = unknown_key(&value, MODEL_YAML_SCHEMA.as_value()) {
            return Err(SettingsError::UnknownKey { file: file.to_owned(), key, suggestion });
        }
        let invalid = |reason: String| SettingsError::Invalid { file: file.to_owned(), reason };
        let mut value = value;
        drop_nulls(&mut value);
        let settings: Self = serde_path_to_error::deserialize(value).map_err(|error| invalid(error.to_string()))?;
        settings.validate().map_err(invalid)?;
        Ok(settings)
    }

    fn validate(&self) -> Result<(), String> {
        let unit = |name, value: Option<f32>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => Err(format!("thresholds.{name} lies between 0 and 1")),
            _ => Ok(()),
        };
        let positive = |name: &str, value: Option<usize>| match value {
            Some(0) => Err(format!("{name} is at least 1")),
            _ => Ok(()),
        };
        unit("conf", self.thresholds.conf)?;
        unit("iou", self.thresholds.iou)?;
        positive("thresholds.max_det", self.thresholds.max_det)?;
        positive("instances", self.instances)?;
        positive("threads", self.threads)?;
        positive("batching.max_batch_size", self.batching.max_batch_size)?;
        positive("batching.max_batch_tokens", self.batching.max_batch_tokens)?;
        positive("embedding.max_tokens", self.embedding.max_tokens)?;
        positive("batching.max_queue_size", self.batching.max_queue_size)?;
        positive("batching.max_queue_mb", self.batching.max_queue_mb)?;
        let batching = &self.batching;
        for size in &batching.preferred_batch_size {
            positive("batching.preferred_batch_size", Some(*size))?;
            if batching.max_batch_size.is_some_and(|most| *size > most) {
                return Err("batching.preferred_batch_size is at most max_batch_size".to_owned());
            }
        }
        for priority in Priority::ALL {
            let policy = batching.queue_policy.for_priority(priority);
            positive(&format!("batching.queue_policy.{priority}.max_queue_size"), policy.max_queue_size)?;
            if policy.timeout_ms.is_some_and(|timeout| !(timeout > 0.0 && timeout <= 86_400_000.0)) {
                return Err(format!("batching.queue_policy.{priority}.timeout_ms lies above 0, within a day"));
            }
        }
        if let Some(prove) = &self.prove {
            positive("prove.inputs", Some(prove.inputs))?;
            if prove.inputs > 1024 || prove.tolerance.is_nan() || prove.tolerance < 0.0 {
                return Err("prove.inputs is at most 1024, and prove.tolerance is not below 0".to_owned());
            }
            if prove.max_slowdown.is_nan() || prove.max_slowdown <= 0.0 {
                return Err("prove.max_slowdown is above 0".to_owned());
            }
        }
        for side in self.preprocessing.size.iter().flatten() {
            positive("preprocessing.size", Some(*side))?;
        }
        if self.batching.max_queue_delay_ms.is_some_and(|delay| !(0.0..=10_000.0).contains(&delay)) {
            return Err("batching.max_queue_delay_ms lies between 0 and 10000".to_owned());
        }
        if self.providers.as_ref().is_some_and(Vec::is_empty) {
            return Err("providers names at least one".to_owned());
        }
        if self.preprocessing.std.is_some_and(|std| std.contains(&0.0)) {
            return Err("preprocessing.std holds no 0".to_owned());
        }
        Ok(())
    }
}

fn read_optional(folder: &Path, path: &Path) -> Result<Option<String>, SettingsError> {
    match read_text(folder, path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_missing() && !path.is_symlink() => Ok(None),
        Err(error) => Err(SettingsError::Io { file: path.display().to_string(), reason: error.to_string() }),
    }
}

fn value_of(text: &str, file: &str) -> Result<Value, SettingsError> {
    serde_norway::from_str(caudal_types::without_mark(text))
        .map_err(|error| SettingsError::Invalid { file: file.to_owned(), reason: error.to_string() })
}

/// Removes every key without a value, which is equivalent to an absent key.
fn drop_nulls(value: &mut Value) {
    if let Value::Mapping(table) = value {
        table.retain(|_, value| !value.is_null());
        table.values_mut().for_each(drop_nulls);
    }
}

/// Merges `upper` into `lower`, table by table.
fn merge_values(lower: &mut Value, upper: Value) {
    match (lower, upper) {
        (Value::Mapping(lower), Value::Mapping(upper)) => {
            for (key, value) in upper {
                merge_values(lower.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (lower, upper) => *lower = upper,
    }
}

/// The first key in `table`, or in a nested table, that is not in `schema`, and a similar known key.
fn unknown_key(table: &Value, schema: &serde_json::Value) -> Option<(String, Option<String>)> {
    let known = schema.get("properties")?.as_object()?;
    table.as_mapping()?.iter().find_map(|(key, value)| {
        let key = key.as_str()?;
        match known.get(key) {
            None => Some((key.to_owned(), nearest(key, known.keys().map(String::as_str)).map(str::to_owned))),
            Some(schema) => {
                unknown_key(value, schema).map(|(below, suggestion)| (format!("{key}.{below}"), suggestion))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn error(text: &str) -> String {
        ModelSettings::parse(text, "model.yaml").unwrap_err().to_string()
    }

    #[test]
    fn empty_file_gives_defaults() {
        assert_eq!(ModelSettings::parse("", "f").unwrap(), ModelSettings::default());
        assert_eq!(ModelSettings::parse("# only a comment\n", "f").unwrap(), ModelSettings::default());
        let nulls = "thresholds: {conf: null}\nbatching:\nembedding: {truncate: null}\naliases: null\ninstances: null";
        assert_eq!(ModelSettings::parse(nulls, "f").unwrap(), ModelSettings::default());
        let nowhere = ModelSettings::read_folder(Path::new("/nowhere"), "nowhere");
        assert_eq!(nowhere.unwrap().settings, ModelSettings::default());
    }

    #[test]
    fn settings_outside_folder_are_not_read() {
        let home = tempfile::tempdir().unwrap();
        let (folder, secret) = (home.path().join("m"), home.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(&secret, "root: x").unwrap();
        for target in [secret, folder.join("nowhere")] {
            let file = folder.join("model.yaml");
            symlink(&target, &file).unwrap();
            let error = ModelSettings::read_folder(&folder, "m").unwrap_err();
            assert!(matches!(error, SettingsError::Io { .. }), "{error}");
            assert!(!error.to_string().contains("root"), "{error}");
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn every_documented_key_is_accepted() {
        let text = "
kind: detect
family: yolov8
labels: labels.txt
aliases: [small]
version: 3
thresholds: {conf: 0.3, iou: 0.6, max_det: 10}
preprocessing: {size: [640, 480], fit: stretch, decode: reduced, pad: 0, color: bgr, scale: 1, mean: [1, 2, 3], std: [1, 1, 1]}
embedding: {pooling: cls, normalize: false, max_tokens: 256, truncate: true, allow_token_ids: true}
batching:
  max_batch_size: 4
  preferred_batch_size: [2, 4]
  max_batch_tokens: 2048
  max_queue_delay_ms: 0.5
  max_queue_size: 9
  max_queue_mb: 7
  preserve_ordering: true
  queue_policy: {high: {max_queue_size: 3}, low: {timeout_ms: 20, timeout_action: delay}}
instances: 2
threads: 1
prove: {inputs: 4, tolerance: 0.01, max_slowdown: 2}
providers: [openvino, cpu]
precision: bf16
graph_optimization: extended
";
        let settings = ModelSettings::parse(text, "f").unwrap();
        assert_eq!(settings.labels, Some(Labels::File("labels.txt".to_owned())));
        assert_eq!(settings.preprocessing.fit, Some(ResizeMode::Stretch));
        assert_eq!(settings.batching.max_queue_delay_ms, Some(0.5));
        assert_eq!(settings.providers, Some(vec![Provider::OpenVino, Provider::Cpu]));
    }

    #[test]
    fn unknown_key_is_named_with_suggestion() {
        assert_eq!(error("instnaces: 2"), "model.yaml has the unknown key \"instnaces\"; did you mean \"instances\"?");
        let nested = error("batching: {queue_policy: {low: {max_size: 2}}}");
        assert_eq!(nested, "model.yaml has the unknown key \"batching.queue_policy.low.max_size\"");
        assert_eq!(
            error("batching: {max_batchsize: 2}"),
            "model.yaml has the unknown key \"batching.max_batchsize\"; did you mean \"max_batch_size\"?"
        );
    }

    #[test]
    fn model_yaml_overrides_config_pbtxt() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        fs::write(folder.join("config.pbtxt"), "max_batch_size: 8 instance_group { count: 3 } metric_tags { }")
            .unwrap();
        fs::write(folder.join("model.yaml"), "batching: {max_batch_size: 2}\nthreads: 1").unwrap();
        let said = ModelSettings::read_folder(folder, "m").unwrap();
        let ModelSettings { batching, instances, threads, .. } = said.settings;
        assert_eq!((batching.max_batch_size, instances, threads), (Some(2), Some(3), Some(1)));
        assert_eq!(said.idle, ["metric_tags"]);
        fs::write(folder.join("config.pbtxt"), "max_batchsize: 8").unwrap();
        let error = ModelSettings::read_folder(folder, "m").unwrap_err().to_string();
        assert!(error.contains("config.pbtxt") && error.contains("did you mean \"max_batch_size\""), "{error}");
    }

    #[test]
    fn values_out_of_range_are_rejected() {
        for (text, words) in [
            ("thresholds: {conf: 2}", "conf lies between 0 and 1"),
            ("instances: 0", "instances is at least 1"),
            ("batching: {max_queue_delay_ms: -1}", "between 0 and 10000"),
            ("batching: {max_batch_size: 4, preferred_batch_size: [8]}", "at most max_batch_size"),
            ("batching: {queue_policy: {low: {timeout_ms: 0}}}", "queue_policy.low.timeout_ms lies above 0"),
            ("batching: {queue_policy: {low: {timeout_action: wait}}}", "reject"),
            ("preprocessing: {std: [1, 0, 1]}", "std holds no 0"),
            ("embedding: {max_tokens: 0}", "embedding.max_tokens is at least 1"),
            ("embedding: {pooling: max}", "pooling"),
            ("threads: many", "threads"),
            ("prove: {inputs: 0}", "prove.inputs is at least 1"),
            ("prove: {max_slowdown: -1}", "above 0"),
            ("providers: []", "at least one"),
            ("providers: [opnvino]", "there are cpu, openvino, cuda, tensorrt, xnnpack"),
            ("precision: int8", "bf16"),
            ("thresholds: [", "line"),
        ] {
            assert!(error(text).contains(words), "{text}: {}", error(text));
        }
    }
}
