//! Pipelines: read from their folder, given what their leaves need, and what runs them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use caudal_flow::{
    Allowance, Blueprint, Definition, Engine, Finding, Flows, Folder, Limits, Options, Registry, Room, Severity,
    journal::{Runs, StoredRuns},
};
use caudal_flow_leaves::{Allow, Llm, Net, Price, Prices, Provider, Record, Serving};
use caudal_store::Store;
use serde::Deserialize;

use super::AssembleError;
use crate::settings::Settings;

/// The file that says what pipelines may, beside them.
pub(crate) const FILE: &str = "flow.yaml";

/// Threads for runs: their steps do their work elsewhere.
const MOST_THREADS: usize = 4;

/// What leaves need of this process.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) models: Option<Serving>,
    pub(crate) record: Option<Record>,
}

/// What pipelines may: `flow.yaml`, which is its owner's and not the pipelines' authors'.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct May {
    /// Providers of language models by name.
    providers: BTreeMap<String, Provider>,
    /// What they cost, under `provider:model` or `provider:*`.
    prices: BTreeMap<String, Price>,
    /// Whether models without a price are not asked.
    strict_prices: bool,
    /// Hosts and networks that `http` may ask beside public ones.
    allow: Vec<String>,
    /// The folder from which pictures may be read, from the file's own folder on.
    files: Option<PathBuf>,
    budgets: Budgets,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Budgets {
    /// Of pipelines of which nothing else is said.
    default: Budget,
    /// By name, or by the beginning of a name and an asterisk.
    pipeline: BTreeMap<String, Budget>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Budget {
    total_cost_usd_limit: Option<f64>,
    total_tokens_limit: Option<u64>,
    total_steps_limit: Option<u64>,
    /// Of all runs of a pipeline together.
    all_runs: Option<Together>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Together {
    total_cost_usd_limit: Option<f64>,
    total_tokens_limit: Option<u64>,
    total_steps_limit: Option<u64>,
    /// When it begins anew; if nothing is said, with the process.
    each: Option<Each>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Each {
    Hour,
    Day,
}

impl Together {
    fn allowance(self) -> Allowance {
        let Self { total_cost_usd_limit, total_tokens_limit, total_steps_limit, each } = self;
        let alike = Budget { total_cost_usd_limit, total_tokens_limit, total_steps_limit, all_runs: None };
        let hours = each.map(|each| match each {
            Each::Hour => 1,
            Each::Day => 24,
        });
        Allowance::new(alike.limits(), hours.map(|hours| Duration::from_secs(hours * 3_600)))
    }
}

impl Budget {
    fn limits(self) -> Limits {
        let cost = self.total_cost_usd_limit.map(|dollars| (dollars.max(0.0) * 1e6) as u64);
        Limits { cost, tokens: self.total_tokens_limit, steps: self.total_steps_limit }
    }
}

impl Budgets {
    /// What a pipeline of that name may spend: by its very name, else by the longest beginning, else as all.
    fn of(&self, name: &str) -> Budget {
        let begins = |pattern: &str| pattern.strip_suffix('*').is_some_and(|begin| name.starts_with(begin));
        let by_pattern =
            self.pipeline.iter().filter(|(pattern, _)| begins(pattern)).max_by_key(|(pattern, _)| pattern.len());
        let found = self.pipeline.get(name).or(by_pattern.map(|(_, budget)| budget));
        found.copied().unwrap_or(self.default)
    }
}

impl May {
    /// Reads the file of a folder, if there is one.
    pub(crate) fn read(folder: &Path) -> Result<Self, AssembleError> {
        let path = folder.join(FILE);
        let wrong = |what: String| AssembleError::Flows(format!("{}: {what}", path.display()));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let may: Self =
            serde_norway::from_str(caudal_types::without_mark(&text)).map_err(|error| wrong(error.to_string()))?;
        // Whoever is started elsewhere means the same folder.
        Ok(Self { files: may.files.map(|files| folder.join(files)), ..may })
    }

    /// All leaves that there are.
    pub(crate) fn registry(&self, parts: Parts) -> Result<Registry, AssembleError> {
        let allow = Allow::new(self.allow.iter().map(String::as_str))
            .map_err(|error| AssembleError::Flows(error.to_string()))?;
        let prices = Prices::new(self.prices.clone());
        let prices = if self.strict_prices { prices.strict() } else { prices };
        let llm = Llm::new(self.providers.clone(), prices, |name| std::env::var(name).ok());
        let Parts { models, record } = parts;
        let mut registry = Registry::default();
        let parts = caudal_flow_leaves::Parts { net: Net::new(allow), llm, models, record, folder: self.files.clone() };
        caudal_flow_leaves::register(&mut registry, parts);
        Ok(registry)
    }

    /// A pipeline's file, read; with what all pipelines keep to.
    pub(crate) fn pipeline(
        &self,
        file: &Path,
        registry: &Registry,
    ) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (mut definition, findings) = Blueprint::read_file(&name, &Folder::new(folder), registry)?;
        let budget = self.budgets.of(&definition.name);
        definition.limits = definition.limits.tightest(budget.limits());
        definition.all_runs = budget.all_runs.map(|together| Arc::new(together.allowance()));
        Ok((definition, findings))
    }
}

/// What runs pipelines.
pub(crate) fn engine(settings: &Settings, store: Option<Arc<dyn Store>>) -> Engine {
    let runs = store.filter(|_| settings.flow.durable).map(|store| Arc::new(StoredRuns::new(store)) as Arc<dyn Runs>);
    Engine::new(Options {
        cache_bytes: settings.flow.cache_bytes,
        cache_ttl: Some(settings.flow.cache_ttl),
        most_steps: settings.flow.most_steps,
        shelf: super::shelf::shelf(settings),
        runs,
    })
}

/// The pipelines' files in a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_pipeline = |path: &PathBuf| {
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        yaml && path.file_name().is_some_and(|name| name != FILE)
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_pipeline).collect();
    files.sort();
    files
}

/// All pipelines of the folder and what runs them. A file that is no pipeline is told of, and the others serve.
pub(crate) fn flows(
    settings: &Settings,
    store: Option<Arc<dyn Store>>,
    parts: Parts,
) -> Result<Arc<Flows>, AssembleError> {
    let may = May::read(&settings.flow.folder)?;
    let registry = may.registry(parts)?;
    let mut definitions: BTreeMap<Arc<str>, Definition> = BTreeMap::new();
    let mut broken = BTreeMap::new();
    for file in files(&settings.flow.folder) {
        let findings = match may.pipeline(&file, &registry) {
            Ok((definition, findings)) => {
                if definitions.contains_key(&definition.name) {
                    tracing::error!("{}: there is a pipeline {} already", file.display(), definition.name);
                } else {
                    definitions.insert(Arc::clone(&definition.name), definition);
                }
                findings
            }
            Err(findings) => {
                tracing::error!("{} is no pipeline; caudal flow validate tells why, too", file.display());
                findings
            }
        };
        findings.iter().for_each(|finding| tracing::warn!("{}:{finding}", file.display()));
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            broken.insert(file.file_stem().unwrap_or_default().to_string_lossy().into(), findings);
        }
    }
    let threads = settings.models.cpus.io_threads.min(MOST_THREADS);
    let (runs, bytes) = settings.flow.room;
    let room = Room::new(runs, usize::try_from(bytes).unwrap_or(usize::MAX));
    Ok(Flows::with_threads(engine(settings, store), definitions.into_values(), broken, threads, room)?)
}
