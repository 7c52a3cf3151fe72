//! Optimization: tries candidates and takes the fastest within the bound on the loss.

use std::{
    fs, iter,
    path::{Path, PathBuf},
    time::Duration,
};

use caudal_engine::{
    Precision,
    repository::{ModelVersion, VersionWorkspace},
};
use caudal_graph::Model;
use caudal_tasks::ServedModel;

use crate::{
    Accuracy, InferenceSpeed, ModelContext, OptimizeError, RunConfig,
    accuracy::Evaluator,
    bench::{InputImage, ModelInput, TestBench, image_model, workspace_error},
    calibrate,
    candidates::{CalibratedRanges, Candidate, calibration_values, candidate_bytes},
    ground_truth::GroundTruth,
};

/// More images than this do not improve the measurement.
const MAX_IMAGES: usize = 128;
/// Number of images that are used in turn while a version is timed.
const MAX_TIMED_IMAGES: usize = 4;
/// The speedup from which a version is worthwhile; less is noise.
const MIN_SPEEDUP: f64 = 1.03;

/// Options of an optimization.
#[derive(Debug, Clone)]
pub struct OptimizeOptions {
    /// Images like those in production.
    pub images: Vec<PathBuf>,
    /// Folder of their labels.
    pub labels: Option<PathBuf>,
    /// The bound on the loss of accuracy.
    pub max_loss: f64,
    /// Prefixes of the names of candidates to try; empty for all.
    pub only: Vec<String>,
    /// The version to write.
    pub write: WriteChoice,
    /// Time for which each candidate is measured, on one core and on all.
    pub time: Duration,
}

/// The version to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteChoice {
    /// The fastest candidate within the bound.
    Best,
    /// The candidate of this name, if it is within the bound.
    Named(String),
    /// Nothing.
    Nothing,
}

/// Progress of an optimization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The present activity.
    pub what: String,
    /// Number of completed parts.
    pub done: usize,
    /// Total number of parts.
    pub of: usize,
}

/// The result of one candidate.
#[derive(Debug, Clone)]
pub struct CandidateResult {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub way: RunConfig,
    /// Bytes of its file.
    pub bytes: u64,
    /// Its speed and accuracy, or the reason why it cannot be used.
    pub tried: Result<(InferenceSpeed, Accuracy), String>,
}

/// The results of an optimization.
#[derive(Debug)]
pub struct OptimizeReport {
    /// The served version.
    pub from: u64,
    /// Number of images.
    pub pictures: usize,
    /// The served version, then the candidates.
    pub rows: Vec<CandidateResult>,
    /// Index of the chosen row, if one was chosen.
    pub chosen: Option<usize>,
    /// The version that was written.
    pub written: Option<ModelVersion>,
}

/// Tries candidates for the model of `site`; `tell` is called with the progress.
pub fn optimize_model(
    site: &ModelContext,
    order: &OptimizeOptions,
    tell: &mut dyn FnMut(Progress),
) -> Result<OptimizeReport, OptimizeError> {
    check_names(order)?;
    if order.images.is_empty() {
        return Err(OptimizeError::NoImages);
    }
    let bench = TestBench::for_model(site)?;
    let serving = bench.load_version(&bench.serving, site.ways[0])?;
    let images = evenly_spaced(&order.images, MAX_IMAGES)
        .map(|path| InputImage::from_file(path))
        .collect::<Result<Vec<_>, _>>()?;
    let limits = site.pictures.limits();
    let truth = order.labels.as_deref().map(|folder| GroundTruth::from_folder(folder, &images, limits)).transpose()?;
    tell(Progress { what: "asking the version that serves".to_owned(), done: 0, of: 1 });
    let judge = Evaluator::from_serving(&bench, &serving, &images, truth)?;
    let workshop = site.folder.create_workspace().map_err(workspace_error(site))?;
    let mut trials = Trials {
        order,
        bench: &bench,
        serving: &serving,
        judge,
        inputs: Vec::new(),
        workshop: &workshop,
        rows: Vec::new(),
    };
    trials.try_all(&images, tell)?;
    let Trials { rows, .. } = trials;
    let chosen = choose_result(&rows, order)?;
    let written = match (chosen, &order.write) {
        (None, _) | (_, WriteChoice::Nothing) => None,
        // The file exists already; only its configuration is new.
        (Some(place), _) if rows[place].name == Candidate::AsItIs.name() => None,
        (Some(place), _) => Some(workshop.publish(&rows[place].name).map_err(workspace_error(site))?),
    };
    Ok(OptimizeReport { from: bench.serving.number, pictures: images.len(), rows, chosen, written })
}

/// Checks the names in `order` before any work is done.
fn check_names(order: &OptimizeOptions) -> Result<(), OptimizeError> {
    let all: Vec<String> = iter::once(Candidate::AsItIs)
        .chain(Candidate::candidate_rows().into_iter().flatten())
        .map(Candidate::name)
        .collect();
    let whole = if let WriteChoice::Named(name) = &order.write { Some(name) } else { None };
    let odd = whole.filter(|name| !all[1..].contains(name));
    let odd = odd.or_else(|| order.only.iter().find(|asked| !all.iter().any(|name| name.starts_with(*asked))));
    match odd {
        Some(asked) => Err(OptimizeError::Unknown { asked: asked.clone(), known: all.join(", ") }),
        None => Ok(()),
    }
}

/// At most `most` of `all`, evenly spaced.
fn evenly_spaced<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let count = all.len().min(most);
    (0..count).map(move |i| &all[i * all.len() / count])
}

struct Trials<'a> {
    order: &'a OptimizeOptions,
    bench: &'a TestBench<'a>,
    serving: &'a ServedModel,
    judge: Evaluator<'a>,
    inputs: Vec<ModelInput>,
    workshop: &'a VersionWorkspace,
    rows: Vec<CandidateResult>,
}

impl Trials<'_> {
    fn try_all(&mut self, images: &[InputImage], tell: &mut dyn FnMut(Progress)) -> Result<(), OptimizeError> {
        let (bench, site, model) = (self.bench, self.bench.site, image_model(self.serving)?);
        let canvases = bench.prepare_canvases(model, images)?;
        self.inputs =
            canvases.iter().take(MAX_TIMED_IMAGES).map(|canvas| ModelInput::from_canvas(canvas, model)).collect();

        // Constants are folded and normalisations fused once, for all candidates.
        let simple = self.workshop.version("simplified").map_err(workspace_error(site))?;
        site.backend.simplify_model(&bench.serving.file, &simple.file)?;
        let unfit = |reason| OptimizeError::Graph { model: site.folder.name.clone(), reason };
        let read = |file: &Path| fs::read(file).map_err(|error| OptimizeError::Io(file.to_owned(), error));
        let simplified = Model::parse(&read(&simple.file)?).map_err(unfit)?;

        let rows: Vec<Vec<Candidate>> =
            Candidate::candidate_rows().into_iter().filter_map(|row| self.requested_candidates(row)).collect();
        let mut ranges = None;
        if rows.iter().flatten().any(|form| matches!(form, Candidate::Int8(..)))
            && let Ok(names) = calibration_values(&simplified)
        {
            let threads = site.defaults.cpus.cpus;
            let mut told = |done, of| tell(Progress { what: "calibrating".to_owned(), done, of });
            let machine = (&*site.backend, threads, self.workshop);
            let seen = calibrate::collect_histograms(&simplified, &names, (model, &canvases), machine, &mut told)?;
            ranges = Some(CalibratedRanges::from_histograms(&seen));
        }
        drop(canvases);

        let of = 1 + rows.len();
        for way in &site.ways {
            tell(Progress { what: format!("trying {} on {way}", Candidate::AsItIs.name()), done: 0, of });
            if *way == site.ways[0] || self.requested_candidates(vec![Candidate::AsItIs]).is_some() {
                self.try_candidate(Candidate::AsItIs, *way, Ok(bench.serving.clone()));
            }
            // A file in reduced precision brings nothing where the provider reduces precision anyway.
            let for_all = way.precision == Precision::F32 && way.optimization == site.ways[0].optimization;
            for (done, row) in rows.iter().enumerate().filter(|_| for_all) {
                for form in row {
                    tell(Progress { what: format!("trying {} on {way}", form.name()), done: done + 1, of });
                    let made = candidate_bytes(&simplified, *form, ranges.as_ref()).map_err(|error| error.to_string());
                    let version = made
                        .and_then(|bytes| self.workshop.write(&form.name(), &bytes).map_err(|error| error.to_string()));
                    if self.try_candidate(*form, *way, version) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The candidates of `row` that were requested.
    fn requested_candidates(&self, row: Vec<Candidate>) -> Option<Vec<Candidate>> {
        let named = |form: &Candidate| {
            let name = form.name();
            match &self.order.write {
                WriteChoice::Named(wanted) => *wanted == name,
                _ => self.order.only.is_empty() || self.order.only.iter().any(|only| name.starts_with(only)),
            }
        };
        let row: Vec<Candidate> = row.into_iter().filter(named).collect();
        (!row.is_empty()).then_some(row)
    }

    /// Tries one candidate; returns whether the rest of its row can be skipped.
    fn try_candidate(&mut self, form: Candidate, way: RunConfig, version: Result<ModelVersion, String>) -> bool {
        let bytes =
            version.as_ref().ok().and_then(|version| fs::metadata(&version.file).ok()).map_or(0, |meta| meta.len());
        let tried =
            version.and_then(|version| self.measure_candidate(&version, way).map_err(|error| error.to_string()));
        let fine = tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= self.order.max_loss);
        // If one candidate cannot be made, milder ones of its row cannot either.
        let hopeless = tried.is_err();
        self.rows.push(CandidateResult { name: form.name(), way, bytes, tried });
        fine || hopeless
    }

    fn measure_candidate(
        &self,
        version: &ModelVersion,
        way: RunConfig,
    ) -> Result<(InferenceSpeed, Accuracy), OptimizeError> {
        let model = self.bench.load_version(version, way)?;
        let accuracy = self.judge.evaluate_model(&model)?;
        drop(model);
        let speed = self.bench.measure_speed(&version.file, way, &self.inputs, self.order.time)?;
        Ok((speed, accuracy))
    }
}

/// Index of the row to write: the fastest within the bound that is clearly faster than the served version, or the named
/// one.
fn choose_result(rows: &[CandidateResult], order: &OptimizeOptions) -> Result<Option<usize>, OptimizeError> {
    let bound = order.max_loss;
    if let WriteChoice::Named(name) = &order.write {
        let within = |row: &CandidateResult| row.tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= bound);
        let named = || rows.iter().enumerate().filter(|(_, row)| row.name == *name);
        let place = named().find(|(_, row)| within(row)).or_else(|| named().next()).map(|(place, _)| place);
        return match place.map(|place| (place, &rows[place].tried)) {
            Some((place, Ok((_, accuracy)))) if accuracy.loss <= bound => Ok(Some(place)),
            Some((_, Ok((_, accuracy)))) => {
                Err(OptimizeError::LosesTooMuch { name: name.clone(), loss: accuracy.loss, bound })
            }
            Some((_, Err(reason))) => Err(OptimizeError::NotMade { name: name.clone(), reason: reason.clone() }),
            None => Ok(None),
        };
    }
    let speed = |row: &CandidateResult| row.tried.as_ref().ok().map(|(speed, _)| speed.all_cores);
    let least = rows.first().and_then(speed).unwrap_or(0.0) * MIN_SPEEDUP;
    let fine = |row: &CandidateResult| row.tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= bound);
    let better = rows
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, row)| fine(row))
        .filter_map(|(place, row)| Some((place, speed(row)?)));
    Ok(better.filter(|(_, speed)| *speed > least).max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::Agreement;
    fn result_row(name: &str, all_cores: f64, loss: f64) -> CandidateResult {
        let speed = InferenceSpeed { one_thread: all_cores, all_cores, p50_ms: 1e3 / all_cores };
        let accuracy = Accuracy { agreement: Agreement::Classes(1.0 - loss), precision: None, loss };
        CandidateResult { name: name.to_owned(), way: RunConfig::default(), bytes: 1, tried: Ok((speed, accuracy)) }
    }

    fn options(write: WriteChoice) -> OptimizeOptions {
        OptimizeOptions {
            images: Vec::new(),
            labels: None,
            max_loss: 0.02,
            only: Vec::new(),
            write,
            time: Duration::ZERO,
        }
    }

    #[test]
    fn fastest_candidate_within_loss_bound_is_chosen() {
        let rows = [
            result_row("serving", 10.0, 0.0),
            result_row("fp16", 9.0, 0.0),
            result_row("int8", 15.0, 0.01),
            result_row("int8-chains", 20.0, 0.03),
        ];
        assert_eq!(choose_result(&rows, &options(WriteChoice::Best)).unwrap(), Some(2));
        assert_eq!(choose_result(&rows[..2], &options(WriteChoice::Best)).unwrap(), None, "nothing is quicker");
        assert_eq!(
            choose_result(&rows, &options(WriteChoice::Named("fp16".to_owned()))).unwrap(),
            Some(1),
            "who names one gets it"
        );
        let error = choose_result(&rows, &options(WriteChoice::Named("int8-chains".to_owned()))).unwrap_err();
        assert!(matches!(error, OptimizeError::LosesTooMuch { .. }), "{error}");
    }

    #[test]
    fn unknown_candidate_names_are_refused() {
        assert!(check_names(&options(WriteChoice::Best)).is_ok());
        for wrong in [
            options(WriteChoice::Named("int9".to_owned())),
            OptimizeOptions { only: vec!["int8".to_owned(), "x".to_owned()], ..options(WriteChoice::Best) },
        ] {
            assert!(matches!(check_names(&wrong), Err(OptimizeError::Unknown { .. })));
        }
    }

    #[test]
    fn images_are_sampled_evenly() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(evenly_spaced(&all, 5).copied().collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(evenly_spaced(&all, 99).count(), 10);
        assert_eq!(evenly_spaced(&all[..0], 99).count(), 0);
    }
}
