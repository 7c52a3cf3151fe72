//! What requests may take: latency budgets by route and stage, and how far they are spent.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use caudal_types::{Stage, StageTimes, nearest, shorten};

use crate::route::Route;

/// The whole way, where a stage is asked for.
pub(crate) const TOTAL: &str = "total";
/// A budget is kept as long as no more than this part of requests takes longer: it is one of the 95th percentile.
pub(crate) const ALLOWED: f64 = 0.05;

/// What requests to one route may take, altogether or at one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) route: Route,
    /// None for the whole way.
    pub(crate) stage: Option<Stage>,
    pub(crate) limit: Duration,
}

impl Budget {
    pub(crate) fn stage_name(&self) -> &'static str {
        self.stage.map_or(TOTAL, Stage::name)
    }

    fn breached(&self, stamps: &StageTimes) -> bool {
        let spent = self.stage.map_or_else(|| stamps.total(), |stage| stamps.spent(stage));
        spent > self.limit
    }
}

/// All budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budgets(Vec<Budget>);

impl Budgets {
    pub(crate) fn all(&self) -> &[Budget] {
        &self.0
    }
}

impl FromStr for Budgets {
    type Err = String;

    /// Reads `ROUTE [STAGE] = MS`, divided by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let each = text.split(',').map(str::trim).filter(|budget| !budget.is_empty());
        Ok(Self(each.map(budget).collect::<Result<_, _>>()?))
    }
}

fn budget(text: &str) -> Result<Budget, String> {
    let form = || format!("{:?} is not ROUTE = MS or ROUTE STAGE = MS", shorten(text));
    let (what, limit) = text.split_once('=').ok_or_else(form)?;
    let mut words = what.split_whitespace();
    let (route, stage) = (words.next().ok_or_else(form)?, words.next());
    if words.next().is_some() {
        return Err(form());
    }
    let paths = || Route::ALL.iter().map(|route| route.path());
    let route = Route::ALL.iter().find(|known| known.path() == route).ok_or_else(|| match nearest(route, paths()) {
        Some(meant) => format!("there is no route {:?}; did you mean {meant:?}?", shorten(route)),
        None => format!("there is no route {:?}; GET /docs lists them", shorten(route)),
    })?;
    let stage = match stage.filter(|stage| *stage != TOTAL) {
        None => None,
        Some(name) => Some(Stage::ALL.into_iter().find(|stage| stage.name() == name).ok_or_else(|| {
            format!(
                "there is no stage {:?}; there are total, {}",
                shorten(name),
                Stage::ALL.map(Stage::name).join(", ")
            )
        })?),
    };
    match limit.trim().parse::<f64>() {
        Ok(ms) if ms > 0.0 && ms < 86_400_000.0 => {
            Ok(Budget { route: *route, stage, limit: Duration::from_secs_f64(ms / 1e3) })
        }
        _ => Err(format!("{:?} is no number of milliseconds", shorten(limit.trim()))),
    }
}

/// How often budgets were exceeded, whether or not they still hold.
#[derive(Debug)]
pub(crate) struct Breaches(Vec<[AtomicU64; Stage::ALL.len() + 1]>);

impl Breaches {
    pub(crate) fn new() -> Self {
        Self(Route::ALL.iter().map(|_| [const { AtomicU64::new(0) }; Stage::ALL.len() + 1]).collect())
    }

    fn place(&self, budget: &Budget) -> &AtomicU64 {
        &self.0[budget.route as usize][budget.stage.map_or(Stage::ALL.len(), |stage| stage as usize)]
    }

    /// Counts what a request to `route` exceeded.
    pub(crate) fn count(&self, budgets: &Budgets, route: Route, stamps: &StageTimes) {
        for budget in budgets.0.iter().filter(|budget| budget.route == route && budget.breached(stamps)) {
            self.place(budget).fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn of(&self, budget: &Budget) -> u64 {
        self.place(budget).load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read() {
        let read: Budgets = "/predict/{model} = 200, /predict/{model} infer=99.5,".parse().unwrap();
        let whole = Budget { route: Route::Predict, stage: None, limit: Duration::from_millis(200) };
        let infer = Budget { route: Route::Predict, stage: Some(Stage::Infer), limit: Duration::from_micros(99_500) };
        assert_eq!(read.all(), [whole, infer]);
        assert_eq!("".parse(), Ok(Budgets::default()));
        for (text, words) in [
            ("/predict/{model}", "is not ROUTE = MS"),
            ("/predict/{model} infer now = 3", "is not ROUTE = MS"),
            ("= 3", "is not ROUTE = MS"),
            ("/predict/{modl} = 3", "did you mean \"/predict/{model}\"?"),
            ("/predict/{model} think = 3", "there is no stage \"think\"; there are total, receive"),
            ("/predict/{model} = fast", "\"fast\" is no number"),
            ("/predict/{model} = 0", "\"0\" is no number"),
        ] {
            let error = text.parse::<Budgets>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_takes_longer_is_counted() {
        let budgets: Budgets = "/predict/{model} = 10, /predict/{model} infer = 5, /v1/embeddings = 1".parse().unwrap();
        let (breaches, start) = (Breaches::new(), std::time::Instant::now());
        let request = |queue: u64, infer: u64| {
            let mut stamps = StageTimes::new(start);
            let ms = Duration::from_millis;
            stamps.enter(Stage::Queue, start);
            stamps.enter(Stage::Infer, start + ms(queue));
            stamps.enter(Stage::Encode, start + ms(queue + infer));
            breaches.count(&budgets, Route::Predict, &stamps);
        };
        request(2, 5);
        request(6, 5);
        request(1, 6);
        request(9, 9);
        let counts: Vec<u64> = budgets.all().iter().map(|budget| breaches.of(budget)).collect();
        assert_eq!(counts, [2, 2, 0]);
    }
}
