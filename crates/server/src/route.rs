//! The routes, as metrics and logs name them: a closed list, so that no caller can invent a label.

use caudal_types::Stage;

macro_rules! routes {
    ($($(#[$doc:meta])* $name:ident => $method:literal $path:literal,)+) => {
        /// A route.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Route { $($(#[$doc])* $name,)+ }

        impl Route {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];

            pub(crate) const fn method(self) -> &'static str {
                match self { $(Self::$name => $method,)+ }
            }

            /// The path with its parameters' names, not their values.
            pub(crate) const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)+ }
            }

            /// Method and path.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => concat!($method, " ", $path),)+ }
            }
        }
    };
}

routes! {
    Predict => "POST" "/predict/{model}",
    PredictBatch => "POST" "/predict_batch/{model}",
    InferenceImage => "POST" "/api/v1/inference/image",
    Embeddings => "POST" "/v1/embeddings",
    Models => "GET" "/v1/models",
    Model => "GET" "/v1/models/{model}",
    Infer => "POST" "/v2/models/{model}/infer",
    ConsultationMake => "POST" "/consultations",
    ConsultationList => "GET" "/consultations",
    Consultation => "GET" "/consultations/{id}",
    EventAppend => "POST" "/consultations/{id}/events",
    EventBatch => "POST" "/consultations/{id}/events/batch",
    EventStream => "POST" "/consultations/{id}/events/stream",
    EventList => "GET" "/consultations/{id}/events",
    EventFollow => "GET" "/consultations/{id}/events/stream",
    Event => "GET" "/consultations/{id}/events/{event}",
    Receipt => "GET" "/consultations/{id}/events/{event}/receipt",
    Soap => "GET" "/consultations/{id}/soap",
    Head => "GET" "/consultations/{id}/head",
    Verify => "POST" "/consultations/{id}/verify",
    TimelineSessions => "GET" "/api/timeline/sessions",
    TimelineSession => "GET" "/api/timeline/sessions/{id}",
    TimelineStats => "GET" "/api/timeline/stats",
    VerifyHash => "POST" "/api/timeline/verify-hash",
    ExportMake => "POST" "/api/exports",
    Export => "GET" "/api/exports/{id}",
    ExportVerify => "POST" "/api/exports/{id}/verify",
    ExportDownload => "GET" "/api/exports/{id}/download/{file}",
    PipelineList => "GET" "/api/v1/pipelines",
    Pipeline => "GET" "/api/v1/pipelines/{name}",
    PipelineRun => "POST" "/api/v1/pipelines/{name}/run",
    RunList => "GET" "/api/v1/runs",
    Run => "GET" "/api/v1/runs/{id}",
    RunEvents => "GET" "/api/v1/runs/{id}/events",
    RunResume => "POST" "/api/v1/runs/{id}/resume",
    RunCancel => "POST" "/api/v1/runs/{id}/cancel",
    AuditLogs => "GET" "/api/audit/logs",
    AuditStats => "GET" "/api/audit/stats",
    AuditOperations => "GET" "/api/audit/operations",
    ModelMetadata => "GET" "/v2/models/{model}",
    ModelReady => "GET" "/v2/models/{model}/ready",
    RepositoryIndex => "POST" "/v2/repository/index",
    RepositoryLoad => "POST" "/v2/repository/models/{model}/load",
    RepositoryUnload => "POST" "/v2/repository/models/{model}/unload",
    AdminModel => "GET" "/admin/models/{model}",
    AdminModelChange => "PATCH" "/admin/models/{model}",
    AdminOperators => "GET" "/admin/models/{model}/operators",
    AdminRequests => "GET" "/admin/requests",
    AdminRequest => "GET" "/admin/requests/{id}",
    AdminTimeline => "GET" "/admin/requests/trace",
    ProfilingStats => "GET" "/admin/profiling/stats",
    ProfilingBottlenecks => "GET" "/admin/profiling/bottlenecks",
    ProfilingBudgets => "GET" "/admin/profiling/budgets",
    ProfilingHistory => "GET" "/admin/profiling/history",
    ProfilingExplain => "GET" "/admin/profiling/explain",
    ProfilingExport => "GET" "/admin/profiling/export",
    ProfilingSave => "POST" "/admin/profiling/export",
    Profile => "GET" "/debug/pprof/profile",
    Flamegraph => "GET" "/debug/pprof/flamegraph",
    Collapsed => "GET" "/debug/pprof/collapsed",
    Heap => "GET" "/debug/pprof/heap",
    AdminMemory => "GET" "/admin/memory",
    AdminMemoryCleanup => "POST" "/admin/memory/cleanup",
    ServerMetadata => "GET" "/v2",
    ServerLive => "GET" "/v2/health/live",
    ServerReady => "GET" "/v2/health/ready",
    Livez => "GET" "/livez",
    Readyz => "GET" "/readyz",
    Health => "GET" "/health",
    Status => "GET" "/status",
    Metrics => "GET" "/metrics",
    Kpis => "GET" "/api/kpis",
    Index => "GET" "/",
    Docs => "GET" "/docs",
    /// Everything that is no route.
    Unknown => "ANY" "unknown",
}

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What the server is for: predictions, inference, embeddings, the record, pipelines.
    Work,
    /// Everything else: health, metrics, profiles, administration, lists of models, pages, unknown paths.
    Service,
}

/// How the paths of work begin.
const WORK: [&str; 7] = [
    "/predict",
    "/api/v1/",
    "/v1/embeddings",
    "/v2/models/{model}/infer",
    "/consultations",
    "/api/timeline/",
    "/api/exports",
];

impl Route {
    /// The route that `method` and `path` lead to, for requests that are refused before they are routed.
    pub(crate) fn find(method: &str, path: &str) -> Self {
        let parts = |path| str::split(path, '/');
        let fits = |route: &&Self| {
            let (known, given) = (parts(route.path()), parts(path));
            route.method() == method
                && known.clone().count() == given.clone().count()
                && known.zip(given).all(|(known, given)| known == given || known.starts_with('{') && !given.is_empty())
        };
        let fitting = Self::ALL.iter().filter(fits);
        // One that names a part goes before one that takes any.
        fitting.min_by_key(|route| route.path().matches('{').count()).copied().unwrap_or(Self::Unknown)
    }

    /// The methods that go with `path`.
    pub(crate) fn methods(path: &str) -> Vec<&'static str> {
        let mut methods: Vec<_> =
            Self::ALL.iter().filter(|route| matches(route.path(), path)).map(|route| route.method()).collect();
        methods.dedup();
        // Pages and their files are looked at and nothing else.
        if methods.is_empty() { vec!["GET"] } else { methods }
    }

    /// Whether its answers are what a model gave: numbers, mostly.
    pub(crate) fn answers_with_numbers(self) -> bool {
        matches!(self, Self::Predict | Self::PredictBatch | Self::InferenceImage | Self::Embeddings | Self::Infer)
    }

    /// Whether its query may hold the parameters of images.
    pub(crate) fn takes_images(self) -> bool {
        matches!(self, Self::Predict | Self::PredictBatch | Self::InferenceImage)
    }

    /// What it is for.
    pub(crate) fn purpose(self) -> Purpose {
        match WORK.iter().any(|path| self.path().starts_with(path)) {
            true => Purpose::Work,
            false => Purpose::Service,
        }
    }

    /// Where the time of its handler goes as long as the handler says nothing else. Reading a body is `receive` wherever
    /// that happens.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Self::ConsultationMake | Self::EventAppend | Self::EventBatch | Self::EventStream => Stage::Ingest,
            Self::ConsultationList
            | Self::Consultation
            | Self::EventList
            | Self::EventFollow
            | Self::Event
            | Self::Receipt
            | Self::Soap
            | Self::Head
            | Self::Verify
            | Self::TimelineSessions
            | Self::TimelineSession
            | Self::TimelineStats
            | Self::VerifyHash
            | Self::ExportMake
            | Self::Export
            | Self::ExportVerify
            | Self::ExportDownload
            | Self::RunList
            | Self::Run
            | Self::RunEvents
            | Self::AuditLogs
            | Self::AuditStats
            | Self::AuditOperations => Stage::Store,
            Self::PipelineRun | Self::RunResume | Self::RunCancel => Stage::Flow,
            Self::PipelineList | Self::Pipeline | Self::ModelMetadata => Stage::Encode,
            Self::RepositoryIndex
            | Self::RepositoryLoad
            | Self::RepositoryUnload
            | Self::AdminModelChange
            | Self::AdminMemoryCleanup => Stage::Admin,
            // Admission, before the body; the rest of their way names its stages itself.
            _ => Stage::Receive,
        }
    }

    /// Whether its work is refused while memory is short. What looks after the server is not: it may be what gives memory
    /// back.
    pub(crate) fn takes_memory(self) -> bool {
        !matches!(
            self,
            Self::RepositoryIndex | Self::RepositoryUnload | Self::AdminModelChange | Self::AdminMemoryCleanup
        )
    }
}

/// Whether `path` is one of those that `pattern` stands for; a version of a model is asked as the model is.
fn matches(pattern: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let unversioned = path.split_once("/versions/").map(|(model, rest)| match rest.split_once('/') {
        Some((_, asked)) => format!("{model}/{asked}"),
        None => model.to_owned(),
    });
    let path = unversioned.as_deref().unwrap_or(path);
    let (mut expected, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(got)) if part == got || (part.starts_with('{') && !got.is_empty()) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_is_found_by_method_and_path() {
        for (method, path, route) in [
            ("GET", "/admin/memory", Route::AdminMemory),
            ("GET", "/admin/requests/trace", Route::AdminTimeline),
            ("GET", "/admin/requests/x", Route::AdminRequest),
            ("PATCH", "/admin/models/m", Route::AdminModelChange),
            ("POST", "/admin/memory", Route::Unknown),
            ("GET", "/admin/requests/", Route::Unknown),
            ("GET", "/", Route::Index),
        ] {
            assert_eq!(Route::find(method, path), route, "{method} {path}");
        }
    }

    #[test]
    fn the_methods_of_a_path_are_known() {
        assert_eq!(Route::methods("/predict/small"), ["POST"]);
        assert_eq!(Route::methods("/consultations"), ["POST", "GET"]);
        assert_eq!(Route::methods("/admin/models/small"), ["GET", "PATCH"]);
        assert_eq!(Route::methods("/v2/models/small/versions/1/infer"), ["POST"]);
        assert_eq!(Route::methods("/v2/models/small/versions/1"), ["GET"]);
        assert_eq!(Route::methods("/docs/swagger-ui.css"), ["GET"]);
    }
}
