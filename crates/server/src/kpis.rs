//! Key figures of the service, for its owner's dashboard.

use std::{sync::Arc, time::SystemTime};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_sight::{SeriesPoint, WindowStats};
use serde::Serialize;

use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::door::{self, Answer},
    problem::ErrorAnswer,
    route::{Purpose, Route},
    settings::WINDOWS,
};

#[derive(Serialize)]
struct Kpis<T> {
    window: &'static str,
    view: &'static str,
    bucket_secs: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'static str>,
    #[serde(flatten)]
    figures: T,
}

#[derive(Serialize)]
struct Summary {
    summary: WindowStats,
    /// The same of the window before.
    before: WindowStats,
    /// Beside work: requests that ask how the server is or look after it, in the same window.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<WindowStats>,
}

/// Requests of which figures are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// To one route.
    Route(Route),
    /// For work: what users came for.
    Work,
    /// All others: health, metrics, profiles, administration.
    Service,
    All,
}

impl Scope {
    fn holds(self, place: usize) -> bool {
        let Some(route) = Route::ALL.get(place) else { return false };
        match self {
            Self::Route(wanted) => *route == wanted,
            Self::Work => route.purpose() == Purpose::Work,
            Self::Service => route.purpose() == Purpose::Service,
            Self::All => true,
        }
    }
}

#[derive(Serialize)]
struct Chips {
    chips: [Chip; 4],
}

/// A figure with its name, to be shown as it is.
#[derive(Serialize)]
struct Chip {
    id: &'static str,
    label: &'static str,
    value: Option<f64>,
    unit: &'static str,
    /// What it is of the window before, less one.
    change: Option<f64>,
}

#[derive(Serialize)]
struct Series {
    timeseries: Vec<SeriesPoint>,
}

fn chips(now: &WindowStats, before: &WindowStats) -> Chips {
    let chip = |id, label, unit, value: fn(&WindowStats) -> Option<f64>| {
        let (value, was) = (value(now), value(before).filter(|was| *was > 0.0));
        Chip { id, label, unit, value, change: value.zip(was).map(|(value, was)| value / was - 1.0) }
    };
    Chips {
        chips: [
            chip("requests_per_second", "Requests", "1/s", |figures| Some(figures.requests_per_second)),
            chip("p50_ms", "Median", "ms", |figures| figures.p50_ms),
            chip("p95_ms", "p95", "ms", |figures| figures.p95_ms),
            chip("error_rate", "Errors", "%", |figures| Some(figures.error_rate * 100.0)),
        ],
    }
}

/// Reports requests, failures and latency of a time window: as a summary, as cards with their change, or as time
/// series. They cover user work (predictions, inference, embeddings, consultations, pipelines); `scope` selects others.
#[utoipa::path(
    get,
    path = "/api/kpis",
    operation_id = "get_kpis",
    tag = "health",
    params(
        ("window" = inline(Option<schemas::KpiWindow>), Query, description = "default: kpi_default_window of the settings"),
        ("view" = inline(Option<schemas::KpiView>), Query, description = "the form of the answer; default summary"),
        ("route" = Option<String>, Query, description = "figures of this route alone, such as /predict/{model}"),
        ("scope" = inline(Option<schemas::KpiScope>), Query, description = "work (default): requests of users; service: health, metrics, profiles, administration; all"),
    ),
    responses((status = 200, body = schemas::KpiAnswer), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn kpis(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Kpis, &request, |app| {
        crate::health::check_metrics(app)?;
        let parameters = Parameters::of(request.uri(), &["window", "view", "route", "scope"])?;
        let names = WINDOWS.map(|(name, _)| name);
        let window = match parameters.text("window") {
            Some(_) => parameters.word("window", &names)?,
            None => app.settings().kpi_window,
        };
        let (_, length) = WINDOWS.into_iter().find(|(name, _)| *name == window).expect("it is one of these");
        let view = parameters.word("view", &["summary", "chips", "timeseries"])?;
        let (name, route, now) =
            (parameters.word("scope", &["work", "service", "all"])?, parameters.route()?, SystemTime::now());
        let scope = match (route, name) {
            (Some(route), _) => Scope::Route(route),
            (None, "service") => Scope::Service,
            (None, "all") => Scope::All,
            (None, _) => Scope::Work,
        };
        let counted = app.metrics.counted();
        let of = |scope: Scope| app.kpis.window_stats(length, |place| scope.holds(place), &counted, now);
        let figures = || of(scope);
        let (bucket_secs, route) = (app.kpis.bucket_length().as_secs_f64(), route.map(Route::path));
        let scope_name = route.is_none().then_some(name);
        Ok(match view {
            "timeseries" => {
                let figures = Series { timeseries: app.kpis.time_series(length, |place| scope.holds(place), now) };
                Answer::json(&Kpis { window, view, bucket_secs, scope: scope_name, route, figures })
            }
            "chips" => {
                let (now, before) = figures();
                let figures = chips(&now, &before);
                Answer::json(&Kpis { window, view, bucket_secs, scope: scope_name, route, figures })
            }
            _ => {
                let (summary, before) = figures();
                let service = (scope == Scope::Work).then(|| of(Scope::Service).0);
                let figures = Summary { summary, before, service };
                Answer::json(&Kpis { window, view, bucket_secs, scope: scope_name, route, figures })
            }
        })
    })
}
