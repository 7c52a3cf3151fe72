//! `caudal models list|show|doctor`: what is in the repository, in words. `fuse`, `optimize` and `profile` have files of their own.

use std::{process::ExitCode, sync::Arc};

use caudal_engine::{
    Provider,
    repository::{Finding, ModelFolder, ModelSettings, Repository, Severity, examine_repository},
};
use caudal_optimize::{ModelContext, OptimizeError, RunConfig};
use caudal_tasks::{Footprint, Joining, Look, ModelError, Notice, PictureModel, RunsOn, ServedModel, Task, TextModel};
use caudal_types::{Explain, nearest};
use clap::ArgMatches;
use serde_json::{Value, json};

use super::{CommandError, fuse, load, operators, optimize, other};
use crate::{
    assemble::{self, AssembleError},
    settings::Settings,
};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    match matches.subcommand() {
        Some(("list", matches)) => list(matches),
        Some(("show", matches)) => show(matches),
        Some(("doctor", matches)) => doctor(matches),
        Some(("fuse", matches)) => fuse::run(matches),
        Some(("optimize", matches)) => optimize::run(matches),
        Some(("profile", matches)) => operators::run(matches),
        Some(("schema", _)) => {
            println!("{}", serde_json::to_string_pretty(ModelSettings::json_schema()).expect("a schema is plain data"));
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(other("see `caudal models --help`".to_owned())),
    }
}

fn repository(settings: &Settings) -> Result<Repository, CommandError> {
    Ok(Repository::open(&settings.model_repository).map_err(AssembleError::from)?)
}

fn folders(settings: &Settings) -> Result<Vec<ModelFolder>, CommandError> {
    Ok(repository(settings)?.list_models().map_err(AssembleError::from)?)
}

/// The folder of the model that is named, by its name or an alias.
pub(super) fn named(matches: &ArgMatches, settings: &Settings) -> Result<ModelFolder, CommandError> {
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    let folders = folders(settings)?;
    let found = folders.iter().find(|folder| folder.name == name || aliases(folder).iter().any(|alias| alias == name));
    found.cloned().ok_or_else(|| {
        let meant = nearest(name, folders.iter().map(|folder| folder.name.as_str()));
        let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
        other(format!("there is no model {name:?} in {}{meant}", settings.model_repository.display()))
    })
}

fn aliases(folder: &ModelFolder) -> Vec<String> {
    folder.read_settings().map(|settings| settings.aliases).unwrap_or_default()
}

/// All that it takes to make versions of the model that is named.
pub(super) fn site(matches: &ArgMatches, settings: &Settings) -> Result<ModelContext, CommandError> {
    let folder = named(matches, settings)?;
    let backend = Arc::new(assemble::backend(settings)?);
    // The one that runs it now is what the others are compared with.
    let own = folder.read_settings().unwrap_or_default();
    let wanted = own.providers.as_ref().unwrap_or(&settings.models.providers);
    let has = caudal_engine::Backend::providers(&*backend);
    let first = RunConfig {
        provider: wanted.iter().copied().find(|provider| has.contains(provider)).unwrap_or_default(),
        precision: own.precision.unwrap_or_default(),
        optimization: own.graph_optimization,
    };
    Ok(ModelContext {
        folder,
        ways: RunConfig::alternatives_to(&*backend, first),
        backend,
        defaults: settings.models.clone(),
        pictures: assemble::pictures(settings)?,
    })
}

/// Whether the newest version of the model is the one that serves.
pub(super) fn newest_serves(site: &ModelContext) -> bool {
    site.folder.read_settings().is_ok_and(|settings| settings.version.is_none())
}

pub(super) fn tell_whether_it_serves(serves: bool) {
    match serves {
        true => println!("it is the newest and serves from the next load on; delete its folder to go back"),
        false => println!("model.yaml names another `version`, which goes on serving"),
    }
}

/// Says what to do beside what went wrong.
pub(super) fn explained(error: &OptimizeError) -> CommandError {
    other(format!("{error}; {}", error.hint()))
}

fn list(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let backend = assemble::backend(&settings)?;
    let mut rows: Vec<(String, Result<ServedModel, ModelError>, Vec<String>)> = Vec::new();
    for folder in folders(&settings)? {
        rows.push((folder.name.clone(), caudal_tasks::load(&folder, &backend, &settings.models), aliases(&folder)));
    }
    if matches.get_flag("json") {
        let models: Vec<Value> = rows.iter().map(|(name, loaded, aliases)| describe(name, loaded, aliases)).collect();
        println!("{}", serde_json::to_string_pretty(&models).expect("models are plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max(5);
    println!("{:width$}  version  task     plan                            run       memory", "model");
    for (name, loaded, aliases) in &rows {
        let also = if aliases.is_empty() { String::new() } else { format!("  (also {})", aliases.join(", ")) };
        match loaded {
            Ok(model) => {
                println!(
                    "{name:width$}  {:<7}  {:<7}  {:<30}  {:<8}  {:.0} MiB{also}",
                    model.version,
                    model.task.name(),
                    plan(model),
                    format!("{:.1} ms", model.measured.one_row.as_secs_f64() * 1e3),
                    mib(model.memory.bytes()),
                );
                if let Some(notice) = &model.notice {
                    println!("{:width$}  {notice}", "");
                }
            }
            Err(error) => println!("{name:width$}  not ready: {error}{also}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(model: &ServedModel) -> String {
    let plan = model.plan();
    let wide = plan.wide_threads.map_or_else(String::new, |threads| format!(" ({threads} when alone)"));
    let on = if model.runs_on == RunsOn::CPU { String::new() } else { format!(", {}", model.runs_on) };
    format!("{} x {} threads{wide}, batch {}{on}", plan.instances, plan.threads, plan.max_batch_size)
}

/// Whether rows of several requests share a run, and why or why not.
fn rows(model: &ServedModel) -> String {
    let most = model.plan().max_batch_size;
    match &*model.joining() {
        Joining::Joined => {
            format!("of several requests share a run, up to {most}: trial runs gave each the same answer alone")
        }
        Joining::Trusted => format!("of several requests share a run, up to {most}, as batching.join_rows says"),
        apart => format!("of several requests do not share a run: {}", apart.reason().unwrap_or_default()),
    }
}

/// What the doctor says of a model that is not quite what it may be expected to be.
fn noticed(model: &ServedModel, folder: &ModelFolder) -> Option<Finding> {
    let Notice { problem, mend } = model.notice.clone()?;
    Some(Finding { severity: Severity::Note, place: folder.path.clone(), problem, fix: mend })
}

/// What the doctor says of a model whose rows one would expect to be joined and are not.
fn rows_apart(model: &ServedModel, folder: &ModelFolder) -> Option<Finding> {
    let joining = model.joining();
    let Joining::Apart(reason) = &*joining else { return None };
    let batching = folder.read_settings().ok()?.batching;
    let expected = model.spec.has_batch_dimension() || batching.max_batch_size.is_some_and(|size| size > 1);
    (expected && batching.join_rows.is_none()).then(|| Finding {
        severity: Severity::Note,
        place: folder.path.clone(),
        problem: format!("rows of several requests do not share a run: {reason}"),
        fix: "nothing, if rows belong together; batching.join_rows: true in model.yaml joins them all the same"
            .to_owned(),
    })
}

/// What it holds, by the measure that finds most, and by each.
fn memory(model: &ServedModel) -> String {
    let Footprint { weights, arena, resident } = model.memory;
    let arena = arena.map_or_else(String::new, |arena| format!(", arena {:.1}", mib(arena)));
    format!("{:.1} MiB (files {:.1}{arena}, resident {:.1})", mib(model.memory.bytes()), mib(weights), mib(resident))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn describe(name: &str, loaded: &Result<ServedModel, ModelError>, aliases: &[String]) -> Value {
    match loaded {
        Err(error) => {
            json!({ "name": name, "ready": false, "reason": error.to_string(), "hint": error.hint(), "aliases": aliases })
        }
        Ok(model) => {
            let tensors =
                |tensors: &[caudal_tasks::TensorSpec]| tensors.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (plan, memory) = (model.plan(), model.memory);
            let mut described = json!({
                "name": name,
                "ready": true,
                "version": model.version.to_string(),
                "task": model.task.name(),
                "inputs": tensors(&model.spec.inputs),
                "outputs": tensors(&model.spec.outputs),
                "provider": model.runs_on.provider.name(),
                "instead_of": model.runs_on.instead_of.map(Provider::name),
                "left_to_cpu": model.runs_on.left_to_cpu,
                "instances": plan.instances,
                "threads": plan.threads,
                "wide_threads": plan.wide_threads,
                "max_batch_size": plan.max_batch_size,
                "rows_joined": model.joining().joins(),
                "rows_apart_because": model.joining().reason(),
                "in_place_rows": plan.in_place_rows,
                "memory_bytes": { "weights": memory.weights, "arena": memory.arena, "resident": memory.resident },
                "run_ms": (model.measured.one_row.as_secs_f64() * 1e6).round() / 1e3,
                "aliases": aliases,
                "notice": model.notice.as_ref().map(ToString::to_string),
            });
            match &model.task {
                Task::See(seer) => {
                    described["family"] = json!(seer.look.family());
                    described["activation"] = json!(activation(seer));
                    described["labels"] = json!(seer.labels.iter().map(|label| &**label).collect::<Vec<_>>());
                }
                Task::Embed(text) => {
                    described["dimensions"] = json!(text.head.width);
                    described["max_tokens"] = json!(text.tokenizer.max_tokens());
                    described["max_batch_tokens"] = json!(plan.ragged.map(|ragged| ragged.max_batch_tokens));
                }
                Task::Tensors => {}
            }
            described
        }
    }
}

fn show(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let folder = &named(matches, &settings)?;
    let backend = assemble::backend(&settings)?;
    let loaded = caudal_tasks::load(folder, &backend, &settings.models);
    if matches.get_flag("json") {
        let described = describe(&folder.name, &loaded, &aliases(folder));
        println!("{}", serde_json::to_string_pretty(&described).expect("a model is plain data"));
        return Ok(if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let model = loaded.map_err(|error| other(format!("{error}; {}", error.hint())))?;
    print(&model, folder, &aliases(folder));
    Ok(ExitCode::SUCCESS)
}

fn print(model: &ServedModel, folder: &ModelFolder, aliases: &[String]) {
    println!("{} version {} ({})", model.name, model.version, folder.path.display());
    if !aliases.is_empty() {
        println!("  also      {}", aliases.join(", "));
    }
    model.spec.inputs.iter().for_each(|tensor| println!("  input     {tensor}"));
    model.spec.outputs.iter().for_each(|tensor| println!("  output    {tensor}"));
    println!("  provider  {}", model.runs_on);
    println!("  plan      {}", plan(model));
    println!("  rows      {}", rows(model));
    println!("  memory    {}", memory(model));
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    match model.measured.two_rows {
        None => println!("  measured  {:.2} ms a run", ms(model.measured.one_row)),
        Some(two) => println!("  measured  {:.2} ms a run, {:.2} ms for two rows", ms(model.measured.one_row), ms(two)),
    }
    if let Some(notice) = &model.notice {
        println!("  notice    {notice}");
    }
    match &model.task {
        Task::See(seer) => print_pictures(model, seer),
        Task::Embed(text) => print_texts(model, text),
        Task::Tensors => println!("  task      tensors in, tensors out: POST /v2/models/{}/infer", model.name),
    }
}

/// What makes likelihoods of its scores, where that is a matter of this kind of model.
fn activation(seer: &PictureModel) -> Option<&'static str> {
    let counts = match &seer.look {
        Look::Classify { .. } => true,
        Look::Segment(_) => seer.look.classes() == Some(1),
        Look::Detect(_) => false,
    };
    counts.then(|| seer.activation.name())
}

fn print_texts(model: &ServedModel, text: &TextModel) {
    println!("  task      embed: POST /v1/embeddings with \"model\": {:?}", model.name);
    let pooling = text.head.pooling.map_or_else(|| "in the graph".to_owned(), |pooling| format!("{pooling:?}"));
    let (max_tokens, normalize) = (text.tokenizer.max_tokens(), text.head.normalize);
    println!("  text      at most {max_tokens} tokens, pooling {pooling}, normalize {normalize}");
    println!("  vector    {} values", text.head.width);
    if let Some(ragged) = model.plan().ragged {
        println!("  a run     at most {} tokens, costs {} beside them", ragged.max_batch_tokens, ragged.run_tokens);
    }
}

fn print_pictures(model: &ServedModel, seer: &PictureModel) {
    let (format, defaults) = (seer.format, seer.thresholds());
    let family = seer.look.family().map_or_else(String::new, |family| format!(" ({family})"));
    println!("  task      {}{family}: POST /predict/{}", seer.look.name(), model.name);
    println!(
        "  picture   {}x{}, {:?}, {:?}, {:?}, pad {}",
        format.width, format.height, format.element, format.layout, format.fit, format.pad
    );
    println!("  defaults  conf {}, iou {}, max_det {}", defaults.conf, defaults.iou, defaults.max_det);
    if let Some(activation) = activation(seer) {
        println!("  scores    activation {activation}");
    }
    println!("  classes   {}: {}", seer.labels.len(), seer.labels.join(", "));
}

fn doctor(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let settings = load(matches, true)?.settings;
    let repository = repository(&settings)?;
    let mut findings = examine_repository(&repository).map_err(AssembleError::from)?;
    // What looks healthy is loaded: only then is it known to be.
    let backend = assemble::backend(&settings)?;
    for folder in folders(&settings)? {
        let ailing = |finding: &Finding| finding.severity == Severity::Error && finding.place.starts_with(&folder.path);
        if findings.iter().any(ailing) {
            continue;
        }
        match caudal_tasks::load(&folder, &backend, &settings.models) {
            Ok(model) => findings.extend(noticed(&model, &folder).into_iter().chain(rows_apart(&model, &folder))),
            Err(error) => findings.push(Finding {
                severity: Severity::Error,
                place: folder.path.clone(),
                problem: error.to_string(),
                fix: error.hint().into_owned(),
            }),
        }
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if matches.get_flag("json") {
        let rows: Vec<Value> = findings.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&rows).expect("findings are plain data"));
    } else {
        tell(&findings, &repository);
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(finding: &Finding) -> Value {
    let severity = if finding.severity == Severity::Error { "error" } else { "note" };
    json!({ "severity": severity, "place": finding.place, "problem": finding.problem, "mend": finding.fix })
}

fn tell(findings: &[Finding], repository: &Repository) {
    for finding in findings {
        let mark = if finding.severity == Severity::Error { "✗" } else { "·" };
        println!("{mark} {}\n    {}\n    → {}", finding.place.display(), finding.problem, finding.fix);
    }
    if findings.is_empty() {
        println!("{}: all models are well", repository.root().display());
    }
}
