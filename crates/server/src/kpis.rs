//! Key figures of the service, for its owner's dashboard.

use std::{sync::Arc, time::SystemTime};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_sight::{Figures, Point};
use serde::Serialize;

use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::door::{self, Answer},
    problem::ErrorAnswer,
    route::Route,
    settings::WINDOWS,
};

#[derive(Serialize)]
struct Kpis<T> {
    window: &'static str,
    view: &'static str,
    bucket_secs: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'static str>,
    #[serde(flatten)]
    figures: T,
}

#[derive(Serialize)]
struct Summary {
    summary: Figures,
    /// The same of the window before.
    before: Figures,
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
    timeseries: Vec<Point>,
}

fn chips(now: &Figures, before: &Figures) -> Chips {
    let chip = |id, label, unit, value: fn(&Figures) -> Option<f64>| {
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

/// Requests, failures and latency of a window: in short, as chips to be shown with their change, or bucket by bucket.
#[utoipa::path(
    get,
    path = "/api/kpis",
    operation_id = "get_kpis",
    tag = "health",
    params(
        ("window" = inline(Option<schemas::KpiWindow>), Query, description = "default: kpi_default_window of the settings"),
        ("view" = inline(Option<schemas::KpiView>), Query, description = "the form of the answer; default summary"),
        ("route" = Option<String>, Query, description = "such as /predict/{model}; default: all"),
    ),
    responses((status = 200, body = schemas::KpiAnswer), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn kpis(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Kpis, &request, |app| {
        crate::health::check_metrics(app)?;
        let parameters = Parameters::of(request.uri(), &["window", "view", "route"])?;
        let names = WINDOWS.map(|(name, _)| name);
        let window = match parameters.text("window") {
            Some(_) => parameters.word("window", &names)?,
            None => app.settings().kpi_window,
        };
        let (_, length) = WINDOWS.into_iter().find(|(name, _)| *name == window).expect("it is one of these");
        let view = parameters.word("view", &["summary", "chips", "timeseries"])?;
        let route = parameters.route()?;
        let (now, place) = (SystemTime::now(), route.map(|route| route as usize));
        let figures = || app.kpis.figures(length, place, &app.metrics.counted(), now);
        let (bucket_secs, route) = (app.kpis.bucket().as_secs_f64(), route.map(Route::path));
        Ok(match view {
            "timeseries" => {
                let figures = Series { timeseries: app.kpis.series(length, place, now) };
                Answer::json(&Kpis { window, view, bucket_secs, route, figures })
            }
            "chips" => {
                let (now, before) = figures();
                Answer::json(&Kpis { window, view, bucket_secs, route, figures: chips(&now, &before) })
            }
            _ => {
                let (summary, before) = figures();
                Answer::json(&Kpis { window, view, bucket_secs, route, figures: Summary { summary, before } })
            }
        })
    })
}
