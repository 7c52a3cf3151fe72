//! What may be asked of a profile.

use std::{ops::RangeInclusive, time::Duration};

use caudal_profiler::{DEFAULT_HZ, Format, MAX_HZ};
use caudal_types::{nearest, shorten};

use crate::{docs::schemas, problem::Problem};

const SECONDS: RangeInclusive<u64> = 1..=300;
/// As tools that read pprof are used to.
const DEFAULT_SECONDS: u64 = 30;
/// What a flame graph adds to its own address when somebody zooms or searches in it: whoever loads that again means it.
const OF_THE_PICTURE: [&str; 3] = ["s", "x", "y"];

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which `profile` reads")]
pub(super) struct ProfileParams {
    /// How long; 30 when absent.
    #[param(minimum = 1, maximum = 300)]
    seconds: Option<u64>,
    /// Samples for each second that a thread works; 100 when absent.
    #[param(minimum = 1, maximum = 1000)]
    hz: Option<u32>,
    /// `svg`, `pprof`, `collapsed` or `speedscope`; what the path says when absent.
    #[param(value_type = Option<schemas::ProfileFormat>, inline)]
    format: Option<String>,
    /// A model whose operators stand on the frames of its runtime, each with its share of their time, as 20 runs beside
    /// those that serve tell it.
    operators: Option<String>,
}

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameter, which `format` reads")]
pub(super) struct HeapParams {
    /// `pprof`, `svg`, `collapsed` or `speedscope`; `pprof` when absent.
    #[param(value_type = Option<schemas::ProfileFormat>, inline)]
    format: Option<String>,
}

/// What a CPU profile should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) time: Duration,
    pub(super) hz: u32,
    pub(super) format: Option<Format>,
    /// The model whose operators are shown.
    pub(super) operators: Option<String>,
}

pub(super) fn profile(query: Option<&str>) -> Result<Asked, Problem> {
    let mut asked = Asked { time: Duration::from_secs(DEFAULT_SECONDS), hz: DEFAULT_HZ, format: None, operators: None };
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "seconds" => asked.time = Duration::from_secs(number("seconds", &value, SECONDS)?),
            "hz" => asked.hz = number("hz", &value, 1..=u64::from(MAX_HZ))? as u32,
            "format" => asked.format = Some(named(&value)?),
            "operators" => asked.operators = Some(value.into_owned()),
            name if OF_THE_PICTURE.contains(&name) => {}
            _ => return Err(unknown(&name, &["seconds", "hz", "format", "operators"])),
        }
    }
    Ok(asked)
}

/// The form of a profile that has nothing else to choose.
pub(super) fn format(query: Option<&str>) -> Result<Option<Format>, Problem> {
    let mut format = None;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "format" => format = Some(named(&value)?),
            name if OF_THE_PICTURE.contains(&name) => {}
            _ => return Err(unknown(&name, &["format"])),
        }
    }
    Ok(format)
}

fn number(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    text.trim().parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = range.into_inner();
        let message = format!("{name} is a whole number from {least} to {most}, not {:?}", shorten(text));
        Problem::parameter(message, "correct the value")
    })
}

fn named(text: &str) -> Result<Format, Problem> {
    text.parse().map_err(|error| Problem::parameter(format!("{error}, not {:?}", shorten(text)), "correct the value"))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let hint = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("it knows {}", known.join(", ")),
    };
    Problem::parameter(format!("the parameter {:?} is not known", shorten(name)), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str, words: &str) {
        let problem = profile(Some(query)).unwrap_err();
        let said = format!("{}; {}", problem.message, problem.hint);
        assert!(said.contains(words), "{query}: {said}");
    }

    #[test]
    fn what_is_not_said_is_as_tools_expect() {
        let asked = profile(None).unwrap();
        let usual = Asked { time: Duration::from_secs(30), hz: 100, format: None, operators: None };
        assert_eq!(asked, usual);
        let asked = profile(Some("seconds=300&hz=1000&format=speedscope&operators=m")).unwrap();
        let (format, operators) = (Some(Format::Speedscope), Some("m".to_owned()));
        assert_eq!(asked, Asked { time: Duration::from_secs(300), hz: 1000, format, operators });
        assert_eq!(profile(Some("s=Conv&x=10&y=20.5")).unwrap(), usual, "a picture's own address");
    }

    #[test]
    fn what_cannot_be_is_named_with_its_bounds() {
        for query in ["seconds=0", "seconds=301", "seconds=soon", "seconds=-1", "seconds="] {
            refused(query, "seconds is a whole number from 1 to 300");
        }
        for query in ["hz=0", "hz=1001", "hz=1e3"] {
            refused(query, "hz is a whole number from 1 to 1000");
        }
        refused("format=png", "svg, pprof, collapsed, speedscope");
        refused("second=3", "did you mean \"seconds\"?");
        assert!(format(Some("seconds=3")).is_err(), "a look at the heap takes no time");
    }
}
