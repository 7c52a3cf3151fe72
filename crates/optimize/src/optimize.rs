//! Tries what may be quicker, and takes the quickest that loses no more than it may.

use std::{
    fs, iter,
    path::{Path, PathBuf},
    time::Duration,
};

use caudal_engine::{
    Precision,
    repository::{ModelVersion, Workshop},
};
use caudal_graph::Model;
use caudal_tasks::ServedModel;

use crate::{
    Accuracy, OptimizeError, Site, Speed, Way,
    accuracy::Judge,
    bench::{Bench, Image, Input, seer, unwritable},
    calibrate,
    candidates::{Form, Ranges, needed, written},
    labels::Truth,
};

/// More pictures than this tell nothing new.
const MOST_IMAGES: usize = 128;
/// Pictures that take turns while a version is timed.
const TIMED: usize = 4;
/// How much quicker a version must be to be worth having: less is noise.
const WORTH: f64 = 1.03;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Order {
    /// Pictures like those that the model will see.
    pub images: Vec<PathBuf>,
    /// Where their labels are.
    pub labels: Option<PathBuf>,
    /// What a version may lose.
    pub max_loss: f64,
    /// Beginnings of the names of candidates; all when empty.
    pub only: Vec<String>,
    /// What to write.
    pub write: Write,
    /// How long each candidate is timed, once on one core and once on all.
    pub time: Duration,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The quickest that loses no more than it may.
    Best,
    /// The candidate of this name, if it loses no more than it may.
    Named(String),
    /// Nothing.
    Nothing,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In words.
    pub what: String,
    /// How many parts of it are done.
    pub done: usize,
    /// Of how many.
    pub of: usize,
}

/// One candidate.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// How it runs.
    pub way: Way,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it is worth, or why it is nothing.
    pub tried: Result<(Speed, Accuracy), String>,
}

/// What was tried, and what came of it.
#[derive(Debug)]
pub struct Report {
    /// The version that serves.
    pub from: u64,
    /// Pictures that were looked at.
    pub pictures: usize,
    /// The version that serves, then the others.
    pub rows: Vec<Row>,
    /// The place of the row that was chosen, if one was.
    pub chosen: Option<usize>,
    /// The version that was written.
    pub written: Option<ModelVersion>,
}

/// Tries candidates for the model of `site` as `order` says; `tell` hears what is going on.
pub fn optimize(site: &Site, order: &Order, tell: &mut dyn FnMut(Step)) -> Result<Report, OptimizeError> {
    known(order)?;
    if order.images.is_empty() {
        return Err(OptimizeError::NoImages);
    }
    let bench = Bench::at(site)?;
    let serving = bench.load(&bench.serving, site.ways[0])?;
    let images = spread(&order.images, MOST_IMAGES).map(|path| Image::read(path)).collect::<Result<Vec<_>, _>>()?;
    let limits = site.pictures.limits();
    let truth = order.labels.as_deref().map(|folder| Truth::read(folder, &images, limits)).transpose()?;
    tell(Step { what: "asking the version that serves".to_owned(), done: 0, of: 1 });
    let judge = Judge::of(&bench, &serving, &images, truth)?;
    let workshop = site.folder.workshop().map_err(unwritable(site))?;
    let mut trials = Trials {
        order,
        bench: &bench,
        serving: &serving,
        judge,
        inputs: Vec::new(),
        workshop: &workshop,
        rows: Vec::new(),
    };
    trials.all(&images, tell)?;
    let Trials { rows, .. } = trials;
    let chosen = choose(&rows, order)?;
    let written = match (chosen, &order.write) {
        (None, _) | (_, Write::Nothing) => None,
        // It is there already; what is new is the way to run it.
        (Some(place), _) if rows[place].name == Form::AsItIs.name() => None,
        (Some(place), _) => Some(workshop.publish(&rows[place].name).map_err(unwritable(site))?),
    };
    Ok(Report { from: bench.serving.number, pictures: images.len(), rows, chosen, written })
}

/// Checks that the names in `order` mean something before anything is done.
fn known(order: &Order) -> Result<(), OptimizeError> {
    let all: Vec<String> = iter::once(Form::AsItIs).chain(Form::rows().into_iter().flatten()).map(Form::name).collect();
    let whole = if let Write::Named(name) = &order.write { Some(name) } else { None };
    let odd = whole.filter(|name| !all[1..].contains(name));
    let odd = odd.or_else(|| order.only.iter().find(|asked| !all.iter().any(|name| name.starts_with(*asked))));
    match odd {
        Some(asked) => Err(OptimizeError::Unknown { asked: asked.clone(), known: all.join(", ") }),
        None => Ok(()),
    }
}

/// At most `most` of `all`, evenly from the first to the last.
fn spread<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let count = all.len().min(most);
    (0..count).map(move |i| &all[i * all.len() / count])
}

struct Trials<'a> {
    order: &'a Order,
    bench: &'a Bench<'a>,
    serving: &'a ServedModel,
    judge: Judge<'a>,
    inputs: Vec<Input>,
    workshop: &'a Workshop,
    rows: Vec<Row>,
}

impl Trials<'_> {
    fn all(&mut self, images: &[Image], tell: &mut dyn FnMut(Step)) -> Result<(), OptimizeError> {
        let (bench, site, model) = (self.bench, self.bench.site, seer(self.serving)?);
        let canvases = bench.canvases(model, images)?;
        self.inputs = canvases.iter().take(TIMED).map(|canvas| Input::of(canvas, model)).collect();

        // Constants are computed and normalisations folded once, for all that follows.
        let simple = self.workshop.version("simplified").map_err(unwritable(site))?;
        site.backend.simplify(&bench.serving.file, &simple.file)?;
        let unfit = |reason| OptimizeError::Graph { model: site.folder.name.clone(), reason };
        let read = |file: &Path| fs::read(file).map_err(|error| OptimizeError::Io(file.to_owned(), error));
        let simplified = Model::parse(&read(&simple.file)?).map_err(unfit)?;

        let rows: Vec<Vec<Form>> = Form::rows().into_iter().filter_map(|row| self.wanted(row)).collect();
        let mut ranges = None;
        if rows.iter().flatten().any(|form| matches!(form, Form::Int8(..)))
            && let Ok(names) = needed(&simplified)
        {
            let threads = site.defaults.cpus.cpus;
            let mut told = |done, of| tell(Step { what: "calibrating".to_owned(), done, of });
            let machine = (&*site.backend, threads, self.workshop);
            let seen = calibrate::observe(&simplified, &names, (model, &canvases), machine, &mut told)?;
            ranges = Some(Ranges::of(&seen));
        }
        drop(canvases);

        let of = 1 + rows.len();
        for way in &site.ways {
            tell(Step { what: format!("trying {} on {way}", Form::AsItIs.name()), done: 0, of });
            if *way == site.ways[0] || self.wanted(vec![Form::AsItIs]).is_some() {
                self.row(Form::AsItIs, *way, Ok(bench.serving.clone()));
            }
            // What computes in shorter numbers anyway gains nothing from a file that says so too.
            let for_all = way.precision == Precision::F32 && way.optimization == site.ways[0].optimization;
            for (done, row) in rows.iter().enumerate().filter(|_| for_all) {
                for form in row {
                    tell(Step { what: format!("trying {} on {way}", form.name()), done: done + 1, of });
                    let made = written(&simplified, *form, ranges.as_ref()).map_err(|error| error.to_string());
                    let version = made
                        .and_then(|bytes| self.workshop.write(&form.name(), &bytes).map_err(|error| error.to_string()));
                    if self.row(*form, *way, version) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// What of `row` was asked for.
    fn wanted(&self, row: Vec<Form>) -> Option<Vec<Form>> {
        let named = |form: &Form| {
            let name = form.name();
            match &self.order.write {
                Write::Named(wanted) => *wanted == name,
                _ => self.order.only.is_empty() || self.order.only.iter().any(|only| name.starts_with(only)),
            }
        };
        let row: Vec<Form> = row.into_iter().filter(named).collect();
        (!row.is_empty()).then_some(row)
    }

    /// Tries one candidate; says whether it loses no more than it may.
    fn row(&mut self, form: Form, way: Way, version: Result<ModelVersion, String>) -> bool {
        let bytes =
            version.as_ref().ok().and_then(|version| fs::metadata(&version.file).ok()).map_or(0, |meta| meta.len());
        let tried = version.and_then(|version| self.tried(&version, way).map_err(|error| error.to_string()));
        let fine = tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= self.order.max_loss);
        // One that cannot be made in this way cannot be made in a milder one either.
        let hopeless = tried.is_err();
        self.rows.push(Row { name: form.name(), way, bytes, tried });
        fine || hopeless
    }

    fn tried(&self, version: &ModelVersion, way: Way) -> Result<(Speed, Accuracy), OptimizeError> {
        let model = self.bench.load(version, way)?;
        let accuracy = self.judge.judge(&model)?;
        drop(model);
        let speed = self.bench.time(&version.file, way, &self.inputs, self.order.time)?;
        Ok((speed, accuracy))
    }
}

/// The row to write: the quickest that is within the bound and clearly quicker than the version that serves, or the one that was
/// named.
fn choose(rows: &[Row], order: &Order) -> Result<Option<usize>, OptimizeError> {
    let bound = order.max_loss;
    if let Write::Named(name) = &order.write {
        let within = |row: &Row| row.tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= bound);
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
    let speed = |row: &Row| row.tried.as_ref().ok().map(|(speed, _)| speed.all_cores);
    let least = rows.first().and_then(speed).unwrap_or(0.0) * WORTH;
    let fine = |row: &Row| row.tried.as_ref().is_ok_and(|(_, accuracy)| accuracy.loss <= bound);
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
    fn row(name: &str, all_cores: f64, loss: f64) -> Row {
        let speed = Speed { one_thread: all_cores, all_cores, p50_ms: 1e3 / all_cores };
        let accuracy = Accuracy { agreement: Agreement::Classes(1.0 - loss), precision: None, loss };
        Row { name: name.to_owned(), way: Way::default(), bytes: 1, tried: Ok((speed, accuracy)) }
    }

    fn order(write: Write) -> Order {
        Order { images: Vec::new(), labels: None, max_loss: 0.02, only: Vec::new(), write, time: Duration::ZERO }
    }

    #[test]
    fn the_quickest_within_the_bound_is_taken_and_none_that_loses_more() {
        let rows =
            [row("serving", 10.0, 0.0), row("fp16", 9.0, 0.0), row("int8", 15.0, 0.01), row("int8-chains", 20.0, 0.03)];
        assert_eq!(choose(&rows, &order(Write::Best)).unwrap(), Some(2));
        assert_eq!(choose(&rows[..2], &order(Write::Best)).unwrap(), None, "nothing is quicker");
        assert_eq!(choose(&rows, &order(Write::Named("fp16".to_owned()))).unwrap(), Some(1), "who names one gets it");
        let error = choose(&rows, &order(Write::Named("int8-chains".to_owned()))).unwrap_err();
        assert!(matches!(error, OptimizeError::LosesTooMuch { .. }), "{error}");
    }

    #[test]
    fn names_are_checked_before_anything_is_done() {
        assert!(known(&order(Write::Best)).is_ok());
        for wrong in [
            order(Write::Named("int9".to_owned())),
            Order { only: vec!["int8".to_owned(), "x".to_owned()], ..order(Write::Best) },
        ] {
            assert!(matches!(known(&wrong), Err(OptimizeError::Unknown { .. })));
        }
    }

    #[test]
    fn many_pictures_are_thinned_out_evenly() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(spread(&all, 5).copied().collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(spread(&all, 99).count(), 10);
        assert_eq!(spread(&all[..0], 99).count(), 0);
    }
}
