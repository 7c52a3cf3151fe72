//! Parameters of a request, from its query and from the fields of its form. Every one is checked, and one that is
//! not known is named with the one that may have been meant.

use std::{str::FromStr, time::Duration};

use caudal_tasks::{Ask, Call, Look, MaskForm, PictureModel, Thresholds};
use caudal_types::{Deadline, Priority, nearest, shorten};

use crate::{docs::schemas, lists, problem::Problem};

/// Names with their aliases; the first is ours.
const KNOWN: &[&[&str]] = &[
    &["conf", "confidence"],
    &["iou", "iou_threshold"],
    &["max_det", "max_detections", "max"],
    &[CLASSES],
    &["top_k", "topk"],
    &["masks", "mask_format"],
    &["timeout_ms", "timeout"],
    &["priority"],
    &["draw", "visualization"],
    &["model", "model_id"],
];

/// The parameter that may be given several times.
const CLASSES: &str = "classes";

/// Parameters of the detector API that ours replaces: its clients may go on sending them, and nothing depends on
/// them here.
const LEGACY: &[&str] = &["resize", "max_size", "shared_client"];

/// A year: a longer timeout is a mistake of units.
const MAX_TIMEOUT_MS: f64 = 365.0 * 86_400_000.0;
/// Bytes of one value: more is no parameter.
const LONGEST: usize = 4 << 10;
/// More boxes than this in one answer are no answer.
const MAX_DET: usize = 30_000;
/// Classes of a classification that are told where nobody says how many.
const TOP_K: usize = 5;

/// What every request for work may say in its query.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which `Query` reads")]
pub(crate) struct UrgencyParams {
    /// Milliseconds after which the request is given up with 504.
    #[param(exclusive_minimum = 0)]
    timeout_ms: Option<f64>,
    /// The place in the queue.
    #[param(value_type = Option<schemas::PriorityName>, inline)]
    priority: Option<String>,
}

/// The parameters of one request, under our names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads the part of a URL behind the question mark.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !LEGACY.contains(&&*name) {
                parameters.set(&name, value.into_owned())?;
            }
        }
        Ok(parameters)
    }

    /// Sets one by any of its names.
    pub(crate) fn set(&mut self, name: &str, value: String) -> Result<(), Problem> {
        let Some(names) = KNOWN.iter().find(|names| names.contains(&name)) else { return Err(unknown(name, &[])) };
        let before: usize = self.values(names[0]).map(str::len).sum();
        if before + value.len() > LONGEST {
            let message = format!("the parameter {name:?} has more than {LONGEST} bytes");
            return Err(Problem::parameter(message, "send a shorter value"));
        }
        match self.0.iter_mut().find(|(known, _)| *known == names[0]) {
            // A list may be given in one piece or in several.
            Some((name, _)) if *name == CLASSES => self.0.push((CLASSES, value)),
            // The same in the query and in the form, as some clients send it.
            Some((_, before)) if *before == value => {}
            Some((_, before)) => {
                let (before, value) = (shorten(before), shorten(&value));
                let message = format!("the parameter {name:?} is given twice, as {before:?} and as {value:?}");
                return Err(Problem::parameter(message, "give it once, in the query or as a field of the form"));
            }
            None => self.0.push((names[0], value)),
        }
        Ok(())
    }

    /// Sets one by a field of a form, beside which `files` are read.
    pub(crate) fn set_field(&mut self, name: &str, value: String, files: &[&'static str]) -> Result<(), Problem> {
        match KNOWN.iter().any(|names| names.contains(&name)) {
            true => self.set(name, value),
            false if LEGACY.contains(&name) => Ok(()),
            false => Err(unknown(name, files)),
        }
    }

    /// Checks all that means the same whatever the model is.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.thresholds(Thresholds { conf: 0.0, iou: 0.0, max_det: 1 })?;
        self.top_k()?;
        self.masks()?;
        self.flag("draw")?;
        self.priority()?;
        self.timeout().map(drop)
    }

    /// Refuses parameters of images on routes of tensors and texts, where they would have no effect.
    pub(crate) fn refuse_image_parameters(&self) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !matches!(*name, "timeout_ms" | "priority")) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::parameter(
                format!("the parameter {name:?} has no effect on this route"),
                "leave it out: the query takes timeout_ms and priority here, and all else stands in the path or the body",
            )),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn number<T: FromStr + PartialOrd>(
        &self,
        name: &str,
        least: T,
        most: T,
        range: &str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.trim().parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(Some(number)),
            _ => Err(Problem::parameter(format!("{name} is {range}, not {:?}", shorten(text)), "correct the value")),
        }
    }

    /// The model asked for by parameter.
    pub(crate) fn model(&self) -> Option<&str> {
        self.get("model")
    }

    /// Lets `call` know how urgent it is and how long the caller waits: never longer than it would have without.
    pub(crate) fn apply(&self, call: &mut Call) -> Result<(), Problem> {
        if let Some(timeout) = self.timeout()? {
            call.deadline = call.deadline.sooner(Deadline::after(call.trace.start(), timeout));
        }
        if let Some(priority) = self.priority()? {
            call.priority = priority;
        }
        Ok(())
    }

    fn timeout(&self) -> Result<Option<Duration>, Problem> {
        // Less than a nanosecond is no time.
        let ms = self.number("timeout_ms", 1e-6, MAX_TIMEOUT_MS, "a number of milliseconds, more than 0")?;
        Ok(ms.map(|ms| Duration::from_secs_f64(ms / 1e3)))
    }

    fn priority(&self) -> Result<Option<Priority>, Problem> {
        let Some(text) = self.get("priority") else { return Ok(None) };
        let wrong = |error| Problem::parameter(format!("{error}, not {:?}", shorten(text)), "correct the value");
        text.parse().map(Some).map_err(wrong)
    }

    /// What is asked of `model`.
    pub(crate) fn ask(&self, model: &PictureModel) -> Result<Ask, Problem> {
        Ok(Ask {
            thresholds: self.thresholds(model.thresholds())?,
            classes: self.classes(model)?,
            top_k: self.top_k()?,
            masks: self.masks()?,
            draw: self.draw(model)?,
        })
    }

    fn thresholds(&self, defaults: Thresholds) -> Result<Thresholds, Problem> {
        let unit = "a number between 0 and 1";
        Ok(Thresholds {
            conf: self.number("conf", 0.0, 1.0, unit)?.unwrap_or(defaults.conf),
            iou: self.number("iou", 0.0, 1.0, unit)?.unwrap_or(defaults.iou),
            max_det: self.number("max_det", 1, MAX_DET, "a whole number from 1 to 30000")?.unwrap_or(defaults.max_det),
        })
    }

    fn top_k(&self) -> Result<usize, Problem> {
        Ok(self.number("top_k", 1, MAX_DET, "a whole number from 1 to 30000")?.unwrap_or(TOP_K))
    }

    fn masks(&self) -> Result<MaskForm, Problem> {
        match self.get("masks") {
            None | Some("png") => Ok(MaskForm::Png),
            Some("rle") => Ok(MaskForm::Rle),
            Some(text) => {
                let message = format!("masks is png or rle, not {:?}", shorten(text));
                Err(Problem::parameter(message, "correct the value"))
            }
        }
    }

    fn draw(&self, model: &PictureModel) -> Result<bool, Problem> {
        match (self.flag("draw")?, &model.look) {
            (true, Look::Classify { .. }) => {
                Err(Problem::parameter("a classification has no place on the picture", "leave draw out"))
            }
            (draw, _) => Ok(draw),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Problem> {
        self.get(name).map_or(Ok(false), |text| read_flag(name, text))
    }

    /// Classes by number or by name.
    fn classes(&self, model: &PictureModel) -> Result<Vec<usize>, Problem> {
        let mut classes = Vec::new();
        for list in self.values(CLASSES) {
            let items = lists::split(list).ok_or_else(|| {
                let message = format!("classes has a quote that is not closed: {:?}", shorten(list));
                Problem::parameter(message, "close it, or write \"\" for a quote within quotes")
            });
            let find = |items: Vec<String>| items.iter().map(|item| find_class(model, item)).collect();
            let found: Result<Vec<_>, _> = items.and_then(find);
            match found {
                Ok(found) => classes.extend(found.concat()),
                // One name, with a comma in it.
                Err(problem) => match model.classes(list.trim()) {
                    whole if whole.is_empty() => return Err(problem),
                    whole => classes.extend(whole),
                },
            }
        }
        classes.sort_unstable();
        classes.dedup();
        Ok(classes)
    }
}

/// The classes of `model` that `name` stands for.
fn find_class(model: &PictureModel, name: &str) -> Result<Vec<usize>, Problem> {
    match model.classes(name) {
        found if !found.is_empty() => Ok(found),
        _ => {
            let meant = nearest(name, model.labels.iter().map(|label| &**label));
            let hint = meant.map_or_else(
                || "classes are numbers from 0, or names; `caudal models show` lists them".to_owned(),
                |meant| format!("did you mean {meant:?}?"),
            );
            Err(Problem::parameter(format!("the model knows no class {:?}", shorten(name)), hint))
        }
    }
}

/// Reads the boolean `name`, as web frameworks read them; a name alone says yes.
pub(crate) fn read_flag(name: &str, text: &str) -> Result<bool, Problem> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" | "" => Ok(true),
        "false" | "0" | "no" | "off" | "f" | "n" => Ok(false),
        _ => {
            let message = format!("{name} is true or false, not {:?}", shorten(text));
            Err(Problem::parameter(message, "correct the value"))
        }
    }
}

/// That `name` is no parameter, nor one of `others`, and which may have been meant.
fn unknown(name: &str, others: &[&'static str]) -> Problem {
    let all = KNOWN.iter().copied().flatten().chain(others).copied();
    let hint = nearest(name, all).map_or_else(
        || format!("parameters are {}", KNOWN.iter().map(|names| names[0]).collect::<Vec<_>>().join(", ")),
        |meant| format!("did you mean {meant:?}?"),
    );
    Problem::parameter(format!("the parameter {:?} is not known", shorten(name)), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, Problem> {
        Query::parse(Some(query))
    }

    fn refused(query: &str, words: &str) {
        let problem = parse(query).and_then(|query| query.timeout().and(query.priority())).unwrap_err();
        let said = format!("{}; {}", problem.message, problem.hint);
        assert!(said.contains(words), "{query}: {said}");
    }

    #[test]
    fn values_are_read_under_any_of_their_names() {
        let query = parse("confidence=0.5&timeout_ms=1500&priority=high&model_id=small&classes=1&classes=2,3").unwrap();
        assert_eq!(query.get("conf"), Some("0.5"));
        assert_eq!(query.timeout().unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(query.priority().unwrap(), Some(Priority::High));
        assert_eq!(query.model(), Some("small"));
        assert_eq!(query.values("classes").collect::<Vec<_>>(), ["1", "2,3"]);
    }

    #[test]
    fn parameters_of_the_old_api_do_no_harm() {
        assert!(parse("resize=true&max_size=1024&shared_client=false").unwrap().0.is_empty());
    }

    #[test]
    fn what_cannot_be_is_named_with_its_range() {
        refused("cnof=0.5", "did you mean \"conf\"?");
        refused("colour=red", "parameters are conf, iou");
        refused("timeout_ms=soon", "milliseconds");
        refused("timeout_ms=0", "more than 0");
        refused("timeout_ms=-1", "more than 0");
        refused("timeout_ms=NaN", "more than 0");
        refused("timeout_ms=1e300", "more than 0");
        refused("priority=urgent", "high, normal or low");
        refused("conf=1&conf=2", "given twice, as \"1\" and as \"2\"");
        refused("confidense=1", "did you mean \"confidence\"?");
        refused(&format!("classes={}", "1,".repeat(3000)), "more than 4096 bytes");
        refused(&format!("classes={0}&classes={0}", "1,".repeat(1500)), "more than 4096 bytes");
        refused(&format!("{}=1", "x".repeat(10_000)), "x…");
    }

    #[test]
    fn booleans_are_read_as_web_frameworks_read_them() {
        for (text, expected) in [("True", true), ("on", true), ("YES", true), ("t", true), ("1", true), ("", true)] {
            assert_eq!(read_flag("draw", text).ok(), Some(expected), "{text:?}");
        }
        for text in ["False", "off", "NO", "f", "n", "0"] {
            assert_eq!(read_flag("draw", text).ok(), Some(false), "{text:?}");
        }
        assert!(read_flag("draw", "maybe").is_err() && read_flag("draw", "2").is_err());
    }

    #[test]
    fn a_field_of_the_form_and_the_query_say_the_same_or_one_is_refused() {
        let mut query = parse("conf=0.9&classes=1").unwrap();
        query.set_field("confidence", "0.9".to_owned(), &[]).unwrap();
        query.set_field("classes", "2".to_owned(), &[]).unwrap();
        query.set_field("resize", "true".to_owned(), &[]).unwrap();
        assert_eq!(query.get("conf"), Some("0.9"));
        assert_eq!(query.values("classes").collect::<Vec<_>>(), ["1", "2"]);
        let problem = query.set_field("conf", "0.3".to_owned(), &[]).unwrap_err();
        assert!(problem.message.contains("as \"0.9\" and as \"0.3\""), "{}", problem.message);
        let problem = query.set_field("flie", "x".to_owned(), &["file"]).unwrap_err();
        assert_eq!(problem.hint, "did you mean \"file\"?");
    }

    #[test]
    fn a_caller_may_wait_less_than_the_server_would_let_it_and_not_more() {
        let deadline = |query: &str| {
            let mut call = Call::new(std::time::Instant::now());
            call.deadline = Deadline::after(call.trace.start(), Duration::from_secs(1));
            parse(query).unwrap().apply(&mut call).unwrap();
            call.deadline.moment().unwrap() - call.trace.start()
        };
        assert_eq!(deadline("timeout_ms=20"), Duration::from_millis(20));
        assert_eq!(deadline("timeout_ms=20000"), Duration::from_secs(1));
        assert_eq!(deadline(""), Duration::from_secs(1));
    }
}
