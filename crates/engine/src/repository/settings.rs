//! `model.yaml`: what a model's file cannot say about itself. Every key is optional.

use std::{path::Path, sync::LazyLock};

use caudal_types::{Priority, nearest};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Deserialize;
use serde_norway::Value;

use super::{sandbox::read_text, triton};
use crate::{GraphOptimization, Precision, Provider};

/// The settings of one model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// What the model does: `detect`, `classify`, `segment`, `embed` or `tensors`. Recognised from names and shapes when absent.
    pub kind: Option<String>,
    /// The layout of its outputs, `yolov8` say. Recognised when absent.
    pub family: Option<String>,
    /// Class names: a list, or the name of a file beside `model.yaml` with one name a line. `labels.txt`, if there is one, when absent.
    pub labels: Option<Labels>,
    /// What makes likelihoods of a classifier's scores: `softmax`, `sigmoid`, or `none` where the graph does so. Recognised when absent.
    pub activation: Option<Activation>,
    /// Other names under which the model answers.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The version that serves; the newest when absent.
    pub version: Option<u64>,
    /// Defaults for requests that name no thresholds.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// How a picture becomes the model's input.
    #[serde(default)]
    pub preprocessing: Preprocessing,
    /// How a text becomes a vector.
    #[serde(default)]
    pub embedding: Embedding,
    /// How requests join into batches.
    #[serde(default)]
    pub batching: Batching,
    /// Instances that run at once.
    pub instances: Option<usize>,
    /// Threads within one run.
    pub threads: Option<usize>,
    /// A new version goes live only when it has proved itself. At once when absent.
    pub prove: Option<Prove>,
    /// Who runs it: the first that works, the others are fallbacks. The server's choice when absent.
    pub providers: Option<Vec<Provider>>,
    /// The numbers it is computed in, where the provider leaves a choice.
    pub precision: Option<Precision>,
    /// How far its graph is rewritten.
    #[serde(default)]
    pub graph_optimization: GraphOptimization,
}

/// What a new version must show before it takes the place of the one that serves.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prove {
    /// How many of the latest runs' inputs are kept for a new version to answer.
    pub inputs: usize,
    /// By how much any number of its outputs may deviate, relative where it is above 1.
    pub tolerance: f64,
    /// How many times as long a run may take.
    pub max_slowdown: f64,
}

impl Default for Prove {
    fn default() -> Self {
        Self { inputs: 16, tolerance: 0.001, max_slowdown: 1.5 }
    }
}

/// Class names, or where they are.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Labels {
    /// The names, first class first.
    List(Vec<String>),
    /// A text file beside `model.yaml`, one name a line.
    File(String),
}

/// What makes likelihoods of a model's scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// One of the classes it is.
    Softmax,
    /// Each class for itself.
    Sigmoid,
    /// The graph has done it.
    None,
}

/// Default thresholds of a detector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Least confidence, 0 to 1.
    pub conf: Option<f32>,
    /// Overlap above which the weaker of two boxes of a class goes, 0 to 1.
    pub iou: Option<f32>,
    /// Most boxes in an answer.
    pub max_det: Option<usize>,
}

/// How a picture becomes the model's input: fitted to its size, then `(pixel * scale - mean) / std`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// `[width, height]`, for models whose file leaves them free.
    pub size: Option<[usize; 2]>,
    /// `letterbox` (keep the aspect, centre, pad the rest), `corner` (the same in the upper left corner) or `stretch`.
    pub fit: Option<Fit>,
    /// `full`, or `reduced`: large JPEGs at a fraction of their sides.
    pub decode: Option<Decode>,
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

/// How a picture is brought to the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Keep the aspect and pad what is left, centred.
    Letterbox,
    /// Keep the aspect and pad what is left, in the upper left corner.
    Corner,
    /// Fill the whole input.
    Stretch,
}

/// How a large JPEG is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Every pixel.
    Full,
    /// At a half, a quarter or an eighth of its sides, while that is one and a half times what the model takes.
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

/// How a text becomes a vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// How the vectors of a text's tokens become one; their mean when absent.
    pub pooling: Option<Pooling>,
    /// Whether vectors are brought to length 1, as they are when absent.
    pub normalize: Option<bool>,
    /// Most tokens of a text; as `tokenizer.json` says, or 512, when absent.
    pub max_tokens: Option<usize>,
    /// Whether texts that are too long are cut where a request does not say; when absent they are refused.
    #[serde(default)]
    pub truncate: bool,
    /// Whether requests may bring token ids of this model's own tokenizer in place of texts; when absent they are refused.
    #[serde(default)]
    pub allow_token_ids: bool,
}

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
}

/// How requests join into batches; absent keys take the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batching {
    /// Most rows in one run.
    pub max_batch_size: Option<usize>,
    /// Whether rows of several requests share runs: `true` without a trial, `false` never; tried at load when absent.
    pub join_rows: Option<bool>,
    /// Rows at which a batch leaves at once.
    #[serde(default)]
    pub preferred_batch_size: Vec<usize>,
    /// Most tokens in one run, padding included, of a model that takes texts.
    pub max_batch_tokens: Option<usize>,
    /// How long a free instance waits for more rows, in milliseconds.
    pub max_queue_delay_ms: Option<f64>,
    /// Most entries that wait.
    pub max_queue_size: Option<usize>,
    /// Most bytes that wait, in MiB.
    pub max_queue_mb: Option<usize>,
    /// Answers leave in the order in which their requests were admitted.
    pub preserve_ordering: Option<bool>,
    /// What holds for requests of one priority alone.
    #[serde(default)]
    pub queue_policy: QueuePolicies,
}

/// What holds for requests of one priority alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct QueuePolicies {
    pub high: QueuePolicy,
    pub normal: QueuePolicy,
    pub low: QueuePolicy,
}

/// How many requests of a priority wait, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueuePolicy {
    /// Most requests of this priority that wait.
    pub max_queue_size: Option<usize>,
    /// How long one waits before `timeout_action`, in milliseconds.
    pub timeout_ms: Option<f64>,
    /// `reject` (503), or `delay`: behind all that have not waited that long.
    pub timeout_action: Option<TimeoutAction>,
}

/// What happens to a request that has waited long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum TimeoutAction {
    Reject,
    Delay,
}

impl QueuePolicies {
    /// That of `priority`.
    pub fn of(&self, priority: Priority) -> &QueuePolicy {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }
}

/// What is wrong with a `model.yaml`.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Io {
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A key that means nothing.
    #[error("{file} has the unknown key {key:?}{}", did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// Which file.
        file: String,
        /// The key, with the keys above it.
        key: String,
        /// The key that may have been meant.
        suggestion: Option<String>,
    },
    /// A value of the wrong kind or out of range.
    #[error("{file}: {reason}")]
    Invalid {
        /// Which file.
        file: String,
        /// What, and where.
        reason: String,
    },
}

fn did_you_mean(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!("; did you mean {key:?}?"))
}

/// The shape of `model.yaml`, every table written where it stands.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<ModelSettings>()
});

/// What a folder says of its model.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) settings: ModelSettings,
    /// Fields of `config.pbtxt` that change nothing here.
    pub(super) idle: Vec<&'static str>,
}

impl ModelSettings {
    /// The JSON schema of `model.yaml`, for editors.
    pub fn schema() -> &'static Schema {
        &SCHEMA
    }

    /// Reads what `folder`, whose model is called `name`, says in `model.yaml` and in Triton's `config.pbtxt`: where
    /// both say something, the former holds. A file that does not exist says nothing.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Said, SettingsError> {
        let (ours, theirs) = (folder.join("model.yaml"), folder.join("config.pbtxt"));
        let mut said = Said::default();
        let mut value = Value::Null;
        if let Some(text) = read(folder, &theirs)? {
            let file = theirs.display().to_string();
            let invalid = |reason| SettingsError::Invalid { file: file.clone(), reason };
            let translated = triton::translate(&text, name).map_err(invalid)?;
            Self::from_value(translated.settings.clone(), &file)?;
            (value, said.idle) = (translated.settings, translated.idle);
        }
        let file = ours.display().to_string();
        if let Some(text) = read(folder, &ours)? {
            overlay(&mut value, value_of(&text, &file)?);
        }
        said.settings = Self::from_value(value, &file)?;
        Ok(said)
    }

    /// Reads settings from `text`, which stands in `file`.
    pub fn parse(text: &str, file: &str) -> Result<Self, SettingsError> {
        Self::from_value(value_of(text, file)?, file)
    }

    /// Takes over what `later` says of thresholds, batching and instances, and leaves the rest.
    pub fn overlay(&mut self, later: &Self) {
        fn put<T: Copy>(own: &mut Option<T>, later: Option<T>) {
            *own = later.or(*own);
        }
        put(&mut self.instances, later.instances);
        put(&mut self.thresholds.conf, later.thresholds.conf);
        put(&mut self.thresholds.iou, later.thresholds.iou);
        put(&mut self.thresholds.max_det, later.thresholds.max_det);
        let (own, later) = (&mut self.batching, &later.batching);
        put(&mut own.max_batch_size, later.max_batch_size);
        put(&mut own.max_batch_tokens, later.max_batch_tokens);
        put(&mut own.max_queue_delay_ms, later.max_queue_delay_ms);
        put(&mut own.max_queue_size, later.max_queue_size);
        put(&mut own.max_queue_mb, later.max_queue_mb);
        if !later.preferred_batch_size.is_empty() {
            own.preferred_batch_size.clone_from(&later.preferred_batch_size);
        }
        let (own, later) = (&mut own.queue_policy, &later.queue_policy);
        for (own, later) in [(&mut own.high, &later.high), (&mut own.normal, &later.normal), (&mut own.low, &later.low)]
        {
            put(&mut own.max_queue_size, later.max_queue_size);
            put(&mut own.timeout_ms, later.timeout_ms);
            put(&mut own.timeout_action, later.timeout_action);
        }
    }

    fn from_value(value: Value, file: &str) -> Result<Self, SettingsError> {
        if value.is_null() {
            return Ok(Self::default());
        }
        if let Some((key, suggestion)) = unknown_key(&value, SCHEMA.as_value()) {
            return Err(SettingsError::UnknownKey { file: file.to_owned(), key, suggestion });
        }
        let invalid = |reason: String| SettingsError::Invalid { file: file.to_owned(), reason };
        let mut value = value;
        drop_nulls(&mut value);
        let settings: Self = serde_path_to_error::deserialize(value).map_err(|error| invalid(error.to_string()))?;
        settings.check().map_err(invalid)?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
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
            let policy = batching.queue_policy.of(priority);
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

fn read(folder: &Path, path: &Path) -> Result<Option<String>, SettingsError> {
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

/// Takes out every key without a value: it says no more than a key that is left out.
fn drop_nulls(value: &mut Value) {
    if let Value::Mapping(table) = value {
        table.retain(|_, value| !value.is_null());
        table.values_mut().for_each(drop_nulls);
    }
}

/// Lays `upper` over `lower`, table by table.
fn overlay(lower: &mut Value, upper: Value) {
    match (lower, upper) {
        (Value::Mapping(lower), Value::Mapping(upper)) => {
            for (key, value) in upper {
                overlay(lower.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (lower, upper) => *lower = upper,
    }
}

/// The first key in `table`, or in a table within it, of which `schema` knows nothing, and one that may have been meant.
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
    fn an_empty_file_says_nothing() {
        assert_eq!(ModelSettings::parse("", "f").unwrap(), ModelSettings::default());
        assert_eq!(ModelSettings::parse("# only a comment\n", "f").unwrap(), ModelSettings::default());
        let nulls = "thresholds: {conf: null}\nbatching:\nembedding: {truncate: null}\naliases: null\ninstances: null";
        assert_eq!(ModelSettings::parse(nulls, "f").unwrap(), ModelSettings::default());
        let nowhere = ModelSettings::open(Path::new("/nowhere"), "nowhere");
        assert_eq!(nowhere.unwrap().settings, ModelSettings::default());
    }

    #[test]
    fn what_lies_outside_the_folder_is_not_read() {
        let home = tempfile::tempdir().unwrap();
        let (folder, secret) = (home.path().join("m"), home.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(&secret, "root: x").unwrap();
        for target in [secret, folder.join("nowhere")] {
            let file = folder.join("model.yaml");
            symlink(&target, &file).unwrap();
            let error = ModelSettings::open(&folder, "m").unwrap_err();
            assert!(matches!(error, SettingsError::Io { .. }), "{error}");
            assert!(!error.to_string().contains("root"), "{error}");
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn every_listed_key_is_one_that_is_read() {
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
        assert_eq!(settings.preprocessing.fit, Some(Fit::Stretch));
        assert_eq!(settings.batching.max_queue_delay_ms, Some(0.5));
        assert_eq!(settings.providers, Some(vec![Provider::OpenVino, Provider::Cpu]));
    }

    #[test]
    fn a_mistyped_key_is_named_with_the_one_that_was_meant() {
        assert_eq!(error("instnaces: 2"), "model.yaml has the unknown key \"instnaces\"; did you mean \"instances\"?");
        let nested = error("batching: {queue_policy: {low: {max_size: 2}}}");
        assert_eq!(nested, "model.yaml has the unknown key \"batching.queue_policy.low.max_size\"");
        assert_eq!(
            error("batching: {max_batchsize: 2}"),
            "model.yaml has the unknown key \"batching.max_batchsize\"; did you mean \"max_batch_size\"?"
        );
    }

    #[test]
    fn our_settings_go_before_tritons() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        fs::write(folder.join("config.pbtxt"), "max_batch_size: 8 instance_group { count: 3 } metric_tags { }")
            .unwrap();
        fs::write(folder.join("model.yaml"), "batching: {max_batch_size: 2}\nthreads: 1").unwrap();
        let said = ModelSettings::open(folder, "m").unwrap();
        let ModelSettings { batching, instances, threads, .. } = said.settings;
        assert_eq!((batching.max_batch_size, instances, threads), (Some(2), Some(3), Some(1)));
        assert_eq!(said.idle, ["metric_tags"]);
        fs::write(folder.join("config.pbtxt"), "max_batchsize: 8").unwrap();
        let error = ModelSettings::open(folder, "m").unwrap_err().to_string();
        assert!(error.contains("config.pbtxt") && error.contains("did you mean \"max_batch_size\""), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
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
