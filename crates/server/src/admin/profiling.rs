//! Where the server's time goes: sections ranked, those that take too long, how they change, and all of it as files.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_observe::summaries;
use caudal_sight::{
    self as sight, Bottleneck, RequestQuery, RequestView, SectionChange, SectionRow, SortOrder, SpanStats,
};
use caudal_types::ErrorKind;
use serde::Serialize;

use super::Parameters;
use crate::{
    app::App,
    budgets::{ALLOWED, Budget},
    docs::schemas,
    http::door::{self, Answer},
    problem::{ErrorAnswer, Problem},
    route::Route,
};

const FORMATS: [&str; 3] = ["json", "csv", "txt"];

#[derive(Serialize)]
struct Stats {
    /// Whether sections are timed.
    enabled: bool,
    uptime_seconds: f64,
    sections: Vec<SectionRow>,
}

fn order(parameters: &Parameters) -> Result<SortOrder, Problem> {
    let parsed = parameters.text("sort").map_or(Ok(SortOrder::default()), str::parse);
    parsed.map_err(|known| Problem::parameter("there is no such order", format!("sort is one of {known}")))
}

/// Lists all profiled sections and the stages of each route: calls, time, their own work, waiting, and bytes allocated.
#[utoipa::path(
    get,
    path = "/admin/profiling/stats",
    operation_id = "list_sections",
    tag = "admin",
    params(
        ("sort" = inline(Option<schemas::SectionOrder>), Query, description = "the order; default total"),
        ("top" = Option<usize>, Query, description = "sections to list; default 20", minimum = 1),
        ("recent" = Option<bool>, Query, description = "with the last 1,000 times of each"),
    ),
    responses((status = 200, body = schemas::SectionStats), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn stats(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::ProfilingStats, &request, &["sort", "top", "recent"], |app, parameters| {
        let recent = parameters.flag("recent", false)?;
        let mut sections = sight::rank_sections(&summaries(), order(parameters)?, recent);
        sections.truncate(parameters.number("top", 20, 1, caudal_observe::MAX_SECTIONS)?);
        let uptime_seconds = app.started.elapsed().as_secs_f64();
        Ok(Answer::json(&Stats { enabled: caudal_observe::is_enabled(), uptime_seconds, sections }))
    })
}

#[derive(Serialize)]
struct Bottlenecks {
    threshold_ms: f64,
    bottlenecks: Vec<Bottleneck>,
    /// Sections that take another time than before.
    changes: Vec<SectionChange>,
}

/// Lists slow sections, the worst first: `medium` above the threshold on average, `high` above twice the threshold,
/// `low` for a fast section that takes at least half of its group's time; and sections whose time changed from the
/// previous window, with the time of the change.
#[utoipa::path(
    get,
    path = "/admin/profiling/bottlenecks",
    operation_id = "list_bottlenecks",
    tag = "admin",
    params(
        ("threshold_ms" = Option<f64>, Query, description = "default: bottleneck_threshold_ms of the settings"),
        ("window_minutes" = Option<f64>, Query, description = "the window in which changes are searched; default 60", minimum = 0.01, maximum = 1440),
    ),
    responses((status = 200, body = schemas::BottleneckList), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn bottlenecks(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::ProfilingBottlenecks, &request, &["threshold_ms", "window_minutes"], |app, parameters| {
        let usual = app.settings().profiling.threshold.as_secs_f64() * 1e3;
        let threshold_ms = parameters.number("threshold_ms", usual, 0.000_001, 86_400_000.0)?;
        let window = Duration::from_secs_f64(60.0 * parameters.number("window_minutes", 60.0, 0.01, 1440.0)?);
        Ok(Answer::json(&Bottlenecks {
            threshold_ms,
            bottlenecks: sight::find_bottlenecks(&summaries(), threshold_ms),
            changes: app.history.detect_changes(window, SystemTime::now()),
        }))
    })
}

#[derive(Serialize)]
struct Budgets {
    budgets: Vec<Spent>,
}

/// A budget, and what the latest requests spent of it.
#[derive(Serialize)]
struct Spent {
    route: &'static str,
    stage: &'static str,
    allowed_ms: f64,
    /// 95 of a hundred of the latest requests took at most this long.
    p95_ms: Option<f64>,
    /// The latter of the former: above 1 the budget is overspent.
    spent: Option<f64>,
    /// The latest requests that were looked at.
    requests: usize,
    /// The part of them that took longer.
    over: f64,
    /// How many times more of them did than may (one in twenty).
    burn: f64,
    /// Requests since the server started that took longer.
    breaches: u64,
}

/// Compares the latency budgets of the settings (`latency_budgets`) with the latest successful requests, and shows how
/// fast the error budget is used up.
#[utoipa::path(
    get,
    path = "/admin/profiling/budgets",
    operation_id = "list_latency_budgets",
    tag = "admin",
    responses((status = 200, body = schemas::BudgetList), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn budgets(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::ProfilingBudgets, &request, &[], |app, _| {
        let settings = app.settings();
        let budgets = settings.profiling.budgets.all().iter().map(|budget| spent(app, budget)).collect();
        Ok(Answer::json(&Budgets { budgets }))
    })
}

fn spent(app: &App, budget: &Budget) -> Spent {
    let (route, stage) = (budget.route.title().to_owned(), budget.stage_name());
    let query = RequestQuery { route: Some(route), model: None, status: Some(2), slowest: false, limit: usize::MAX };
    let took = |record: RequestView| match budget.stage {
        None => record.total_ms,
        Some(_) => record.stages.iter().find(|stretch| stretch.stage == stage).map_or(0.0, |stretch| stretch.ms),
    };
    let mut times: Vec<f64> = app.recorder.list_requests(&query).into_iter().map(took).collect();
    times.sort_by(f64::total_cmp);
    let allowed_ms = budget.limit.as_secs_f64() * 1e3;
    let p95_ms = times.get((times.len() * 95).div_ceil(100).saturating_sub(1)).copied();
    let over = times.iter().filter(|time| **time > allowed_ms).count() as f64 / times.len().max(1) as f64;
    Spent {
        route: budget.route.path(),
        stage,
        allowed_ms,
        p95_ms,
        spent: p95_ms.map(|p95| p95 / allowed_ms),
        requests: times.len(),
        over,
        burn: over / ALLOWED,
        breaches: app.breaches.of(budget),
    }
}

#[derive(Serialize)]
struct Past {
    group: String,
    name: String,
    window_secs: f64,
    windows: Vec<SpanStats>,
}

/// Shows one section in each window of the last day, by the `group` and `name` that `stats` returns.
#[utoipa::path(
    get,
    path = "/admin/profiling/history",
    operation_id = "get_section_history",
    tag = "admin",
    params(("group" = String, Query, description = "the section's group"), ("name" = String, Query, description = "the section's name")),
    responses((status = 200, body = schemas::SectionHistory), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn history(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::ProfilingHistory, &request, &["group", "name"], |app, parameters| {
        let given = |name: &str| match parameters.text(name) {
            Some(text) => Ok(text.to_owned()),
            None => Err(Problem::parameter(format!("{name} is missing"), "GET /admin/profiling/stats gives both")),
        };
        let (group, name) = (given("group")?, given("name")?);
        let windows = app.history.section_spans(&group, &name);
        Ok(Answer::json(&Past { group, name, window_secs: app.history.span_length().as_secs_f64(), windows }))
    })
}

/// The table of all sections in `format`, and its media type.
fn table(format: &str, order: SortOrder) -> (&'static str, String) {
    let rows = sight::rank_sections(&summaries(), order, format == "json");
    match format {
        "csv" => ("text/csv; charset=utf-8", sight::rows_to_csv(&rows)),
        "txt" => ("text/plain; charset=utf-8", sight::rows_to_text(&rows)),
        _ => ("application/json", serde_json::to_string_pretty(&rows).expect("rows are plain data")),
    }
}

/// The format that was asked for, else the one of the settings.
fn format(app: &App, parameters: &Parameters) -> Result<&'static str, Problem> {
    match parameters.text("format") {
        Some(_) => parameters.word("format", &FORMATS),
        None => Ok(app.settings().profiling.format),
    }
}

/// Exports all sections as a table: `json` with the last times of each, `csv`, or `txt` for people.
#[utoipa::path(
    get,
    path = "/admin/profiling/export",
    operation_id = "export_sections",
    tag = "admin",
    params(
        ("format" = inline(Option<schemas::TableFormat>), Query, description = "default: profile_export_format of the settings"),
        ("sort" = inline(Option<schemas::SectionOrder>), Query, description = "the order; default total"),
    ),
    responses((status = 200, content((Vec<schemas::SectionRow> = "application/json"), (String = "text/csv"), (String = "text/plain"))), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn export(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::ProfilingExport, &request, &["format", "sort"], |app, parameters| {
        let (media, table) = table(format(app, parameters)?, order(parameters)?);
        Ok(Answer::new(media, table))
    })
}

#[derive(Serialize)]
struct Saved {
    file: String,
    bytes: usize,
}

/// Writes the same table to `profile_output_dir` of the settings, into a file named after the time.
#[utoipa::path(
    post,
    path = "/admin/profiling/export",
    operation_id = "save_sections",
    tag = "admin",
    params(
        ("format" = inline(Option<schemas::TableFormat>), Query, description = "default: profile_export_format of the settings"),
        ("sort" = inline(Option<schemas::SectionOrder>), Query, description = "the order; default total"),
    ),
    responses(
        (status = 201, body = schemas::SavedTable),
        (status = "4XX", body = ErrorAnswer),
        (status = 500, description = "profile_output_dir cannot be written", body = ErrorAnswer),
    ),
)]
pub(crate) async fn save(State(app): State<Arc<App>>, request: Request) -> Response {
    door::stay(app, Route::ProfilingSave, request, |app, request| async move {
        let parameters = Parameters::of(request.uri(), &["format", "sort"])?;
        let (format, order) = (format(&app, &parameters)?, order(&parameters)?);
        let folder = app.settings().profiling.folder.clone();
        let saved = tokio::task::spawn_blocking(move || written(folder, format, order)).await;
        let saved = saved.expect("writing a file does not panic")?;
        Ok(Answer::json(&saved).status(StatusCode::CREATED))
    })
    .await
}

fn written(folder: PathBuf, format: &str, order: SortOrder) -> Result<Saved, Problem> {
    let shown = folder.display();
    let unwritable = |error: std::io::Error| {
        // The folder's name stays here: answers name no files.
        tracing::error!(folder = %shown, %error, "a table of sections cannot be written");
        Problem::new(
            ErrorKind::ExportFailed,
            format!("the table cannot be written into profile_output_dir: {error}"),
            "set profile_output_dir to a folder that the server may write into, or ask by GET and write it yourself",
        )
    };
    let (_, table) = table(format, order);
    fs::create_dir_all(&folder).map_err(unwritable)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = format!("profile-{}.{format}", now.as_millis());
    let (file, part) = (folder.join(&name), folder.join(format!(".{name}.part")));
    let write = fs::write(&part, &table).and_then(|()| fs::rename(&part, &file));
    if let Err(error) = write {
        let _ = fs::remove_file(&part);
        return Err(unwritable(error));
    }
    Ok(Saved { file: name, bytes: table.len() })
}
