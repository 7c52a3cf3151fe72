//! `caudal detect`: the same road as a request's, without a server.

use std::{
    collections::HashSet,
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use caudal_tasks::{Ask, Call, Look, MaskForm, PictureModel, Pictures, Seen, ServedModel, Stay};
use caudal_types::Explain;
use clap::ArgMatches;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandError, load, other, pictures, seen};
use crate::{assemble, settings::Load};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let mut loaded = load(matches, true)?;
    // Whatever a server would load at start: here a model is there when it is named.
    loaded.settings.load = Load::All;
    loaded.settings.stay = Stay::default();
    let files = pictures::files(matches.get_many::<PathBuf>("images").unwrap_or_default())?;
    let backend = Arc::new(assemble::backend(&loaded.settings)?);
    let catalog = assemble::catalog(&loaded.settings, backend)?;
    let model = match matches.get_one::<String>("model") {
        Some(name) => catalog.get(name, None).map_err(|error| other(format!("{error}; {}", error.hint())))?,
        None => {
            let only = catalog.now().only("detect").and_then(|name| catalog.get(name, None).ok());
            only.ok_or_else(|| other("there is not exactly one detector; name one with --model"))?
        }
    };
    let seer = model.picture_model().map_err(|error| other(error.to_string()))?;
    let draw = matches.get_one::<PathBuf>("draw").map(|folder| {
        let made = fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
        made.map_err(|error| other(format!("{} cannot be created: {error}", folder.display())))
    });
    let draw = draw.transpose()?;
    let job = Job {
        model: &model,
        seer,
        pictures: assemble::pictures(&loaded.settings)?,
        ask: ask(matches, seer)?,
        json: matches.get_flag("json"),
        draw: draw.map(|folder| Drawings::new(folder, &files)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| other(error.to_string()))?;
    let failed = runtime.block_on(job.all(&files));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(matches: &ArgMatches, seer: &PictureModel) -> Result<Ask, CommandError> {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let unit = |name: &str, default: f32| match given(name).map(str::parse::<f32>) {
        None => Ok(default),
        Some(Ok(value)) if (0.0..=1.0).contains(&value) => Ok(value),
        Some(_) => Err(other(format!("--{name} is a number between 0 and 1"))),
    };
    let mut thresholds = seer.thresholds();
    thresholds.conf = unit("conf", thresholds.conf)?;
    thresholds.iou = unit("iou", thresholds.iou)?;
    if let Some(text) = given("max-det") {
        let number = text.parse().ok().filter(|number| *number >= 1);
        thresholds.max_det = number.ok_or_else(|| other("--max-det is a whole number, 1 or more"))?;
    }
    let class = |name: &str| match seer.classes(name) {
        found if found.is_empty() => Err(other(format!("the model knows no class {name:?}"))),
        found => Ok(found),
    };
    let classes = given("classes").unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let draw = matches.contains_id("draw");
    if draw && matches!(seer.look, Look::Classify { .. }) {
        return Err(other("a classification has no place on the picture; leave --draw out"));
    }
    let classes = classes.map(class).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(Ask { thresholds, classes, top_k: 5, masks: MaskForm::Rle, draw })
}

struct Job<'a> {
    model: &'a ServedModel,
    seer: &'a PictureModel,
    pictures: Pictures,
    ask: Ask,
    json: bool,
    draw: Option<Drawings>,
}

impl Job<'_> {
    /// Works through `files`, several at once, and tells of each in the order given; counts those that failed.
    async fn all(mut self, files: &[PathBuf]) -> usize {
        let bar = bar(files.len());
        let plan = self.model.plan();
        let room = self.model.queue.policy().max_queue_size;
        let at_once = (plan.instances * plan.max_batch_size * 2).clamp(2, 64).min(room);
        let mut draw = self.draw.take();
        let job = &self;
        let each = stream::iter(files).map(|file| async move { (file, job.one(file).await) });
        let mut results = std::pin::pin!(each.buffered(at_once));
        let mut failed = 0;
        while let Some((file, result)) = results.next().await {
            let told = result.and_then(|seen| {
                let drawn = draw.as_mut().map(|drawings| drawings.write(file, &seen)).transpose()?;
                Ok(job.tell(file, &seen, drawn.as_deref()))
            });
            match told {
                Ok(text) => bar.suspend(|| print!("{text}")),
                Err(reason) => {
                    failed += 1;
                    bar.suspend(|| job.tell_failure(file, &reason));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        failed
    }

    async fn one(&self, file: &Path) -> Result<Seen, String> {
        let bytes = fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
        let call = Call::new(Instant::now());
        let seen = self.model.see(&self.pictures, Bytes::from(bytes), &self.ask, &call).await;
        seen.map_err(|error| format!("{error}; {}", error.hint()))
    }

    fn tell(&self, file: &Path, seen: &Seen, drawn: Option<&Path>) -> String {
        match self.json {
            true => seen::line(file, self.model, self.seer, seen, drawn),
            false => seen::table(file, self.seer, seen, drawn),
        }
    }

    fn tell_failure(&self, file: &Path, reason: &str) {
        if self.json {
            println!("{}", serde_json::json!({ "file": file, "error": reason }));
        } else {
            eprintln!("{}: {reason}", file.display());
        }
    }
}

fn bar(files: usize) -> ProgressBar {
    if files < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} pictures, {per_sec}, {eta} left")
        .expect("the template is a constant");
    ProgressBar::new(files as u64).with_style(style)
}

/// The folder for drawn pictures.
struct Drawings {
    folder: PathBuf,
    /// Files that must not be written: the pictures themselves, and what was drawn already.
    taken: HashSet<PathBuf>,
}

impl Drawings {
    fn new(folder: PathBuf, pictures: &[PathBuf]) -> Self {
        Self { folder, taken: pictures.iter().filter_map(|picture| picture.canonicalize().ok()).collect() }
    }

    fn write(&mut self, file: &Path, seen: &Seen) -> Result<PathBuf, String> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = (1..)
            .map(|i| if i == 1 { format!("{stem}.jpg") } else { format!("{stem}-{i}.jpg") })
            .find(|name| self.taken.insert(self.folder.join(name)))
            .expect("there is no end of numbers");
        let path = self.folder.join(name);
        let jpeg = seen.drawn.as_deref().unwrap_or_default();
        fs::write(&path, jpeg).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok(path)
    }
}
