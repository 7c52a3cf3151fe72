//! What Prometheus reads: it parses, has the names that dashboards know, and its figures add up.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use caudal_testkit::{
    Repo, Server, find_program,
    http::{get, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn ask(server: &Server, rows: usize, parameters: &str) -> u16 {
    server.post_json("/v2/models/double/infer", &tensor_request(&vec![[1.0; 4]; rows], parameters)).status
}

/// A server that has answered three requests of two rows each, and refused some.
fn busy(arguments: &[&str]) -> Server {
    let repo = Repo::new().model("double", "double", "batching: {max_batch_size: 4}");
    let server = Server::start(CAUDAL, &repo, arguments);
    (0..3).for_each(|_| assert_eq!(ask(&server, 2, ""), 200));
    assert_eq!(ask(&server, 9, ""), 400, "too many rows");
    assert_eq!(server.get("/nowhere").status, 404);
    let foreign =
        server.ask(&caudal_testkit::http::Ask { headers: &[("X-Admin-Key", "guess")], ..get("/admin/memory") });
    assert_eq!(foreign.status, 401);
    server
}

/// What Prometheus asks for, and is told.
fn open_metrics(server: &Server) -> String {
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let answer = server.ask(&caudal_testkit::http::Ask { headers: &[("Accept", accept)], ..get("/metrics") });
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    answer.text()
}

/// The families of an exposition with the labels of each of their samples; checks all that OpenMetrics asks of it. No
/// label of ours holds a quotation mark or a comma.
fn parse(text: &str) -> BTreeMap<&str, Vec<BTreeSet<&str>>> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let (mut families, mut kinds, mut seen) = (BTreeMap::<&str, Vec<_>>::new(), BTreeMap::new(), HashSet::new());
    let (mut family, mut below) = ("", 0.0);
    for line in text.lines().filter(|line| !line.starts_with("# EOF")) {
        if let Some(words) = line.strip_prefix("# ") {
            let mut words = words.splitn(3, ' ');
            let (what, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match what {
                "HELP" => assert!(families.insert(name, Vec::new()).is_none(), "{name} is there twice"),
                "TYPE" => assert!(kinds.insert(name, value).is_none(), "{name} has two types"),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{name} is not in {value}"),
                _ => panic!("{line}"),
            }
            family = name;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "{series} is there twice");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no labels: {line}"));
        let suffixes: &[&str] = match kinds[family] {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} does not belong to {family}"));
        assert!(suffixes.contains(&suffix), "{line} in a {}", kinds[family]);
        // Sum and count stand before the buckets, of which each holds those below.
        assert!(suffix != "_bucket" || value >= below, "{line}");
        below = if suffix == "_bucket" { value } else { 0.0 };
        let label = |label: &'_ str| label.split_once("=\"").filter(|(_, value)| value.ends_with('"')).is_some();
        let labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        assert!(labels.iter().all(|own| label(own)), "{line}");
        families.get_mut(family).unwrap().push(labels.iter().map(|label| label.split('=').next().unwrap()).collect());
    }
    families
}

#[test]
fn counters_are_there_before_anything_happens() {
    let folder = tempfile::tempdir().unwrap();
    let greet = "name: greet\nsteps:\n  - name: words\n    uses: template\n    with: {template: 'Hello'}\n";
    fs::write(folder.path().join("greet.yaml"), greet).unwrap();
    let pipelines = folder.path().to_str().unwrap();
    let budget = "/v2/models/{model}/infer = 200";
    let repo = Repo::new().model("double", "double", "");
    let arguments = ["--pipelines", pipelines, "--latency-budgets", budget, "--data-dir", "data"];
    let text = Server::start(CAUDAL, &repo, &arguments).get("/metrics").text();
    for series in [
        "caudal_otlp_spans_exported_total 0",
        "caudal_otlp_spans_dropped_total{reason=\"failed\"} 0",
        "caudal_otlp_points_exported_total 0",
        "caudal_flow_runs_total{pipeline=\"greet\",status=\"completed\"} 0",
        "caudal_flow_steps_total{pipeline=\"greet\",status=\"failed\"} 0",
        "caudal_flow_tokens_total{pipeline=\"greet\",status=\"cancelled\"} 0",
        "caudal_budget_breaches_total{route=\"/v2/models/{model}/infer\",stage=\"total\"} 0",
        "caudal_errors_total{code=\"queue_full\"} 0",
        "fi_events_appended_total 0",
        "fi_persist_errors_total{error_type=\"disk_full\"} 0",
        "fi_ingest_latency_ms_count{stage=\"persist\"} 0",
    ] {
        let (name, value) = series.rsplit_once(' ').unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert_eq!(found, value.parse().ok(), "{series}");
    }
}

#[test]
fn prometheus_reads_it() {
    let server = busy(&[]);
    let text = open_metrics(&server);
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let python = std::env::var("CAUDAL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no Python with prometheus_client (CAUDAL_TEST_PYTHON names one)");
    }
    let mut child =
        Command::new(&python).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#')).count().to_string();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == samples, "{output:?}");
}

/// What `promtool check metrics` says of `text`: its status, and its complaints.
fn complaints(promtool: &Path, text: &[u8]) -> (Option<i32>, Vec<String>) {
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), told.lines().map(str::to_owned).collect())
}

#[test]
fn promtool_has_nothing_against_our_names() {
    let Some(promtool) = find_program(&["promtool"]) else {
        return eprintln!("skipped: promtool is not installed (Debian has it in the package prometheus)");
    };
    let budget = ["--latency-budgets", "/v2/models/{model}/infer = 1000"];
    let own = busy(&[&budget[..], &["--triton-metrics", "false"]].concat()).get("/metrics");
    assert_eq!(own.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(complaints(&promtool, &own.body), (Some(0), Vec::new()));
    // Triton's names are as its dashboards know them: microseconds, and counts of what is no histogram.
    let (status, told) = complaints(&promtool, &busy(&budget).get("/metrics").body);
    assert_eq!(status, Some(3), "it has read all, and has something against names: {told:?}");
    assert!(told.iter().all(|line| line.starts_with("nv_inference_")), "{told:?}");
}

#[test]
fn both_forms_hold_the_same() {
    let server = busy(&[]);
    let (open, classic) = (open_metrics(&server), server.get("/metrics").text());
    let series = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    // Each look is itself counted from the next on.
    let new: Vec<String> = series(&classic).difference(&series(&open)).cloned().collect();
    assert!(series(&open).is_subset(&series(&classic)) && new.iter().all(|one| one.contains("/metrics")), "{new:?}");
    assert!(classic.contains("# TYPE http_requests_total counter") && !classic.contains("# EOF"), "{classic}");
}

#[test]
fn the_exposition_parses_and_has_the_names_that_dashboards_know() {
    let text = open_metrics(&busy(&[]));
    let families = parse(&text);
    for (name, labels) in [
        // The platform of cameras and videos, and the detector API.
        ("http_requests", &["method", "route", "status"][..]),
        ("http_request_duration_seconds", &["method", "route"]),
        ("model_inference_duration_seconds", &["model"]),
        ("model_inference_batch_size", &["model"]),
        ("inference_queue_depth", &["model"]),
        ("process_cpu_usage_percent", &[]),
        ("process_memory_bytes", &[]),
        ("api_requests", &["endpoint", "method", "status"]),
        ("api_request_duration_seconds", &["endpoint", "method"]),
        // Prometheus's own libraries.
        ("process_cpu_seconds", &[]),
        ("process_resident_memory_bytes", &[]),
        ("process_virtual_memory_bytes", &[]),
        ("process_open_fds", &[]),
        ("process_max_fds", &[]),
        ("process_threads", &[]),
        ("process_start_time_seconds", &[]),
        // Triton's.
        ("nv_inference_request_success", &["model", "version"]),
        ("nv_inference_request_failure", &["model", "reason", "version"]),
        ("nv_inference_count", &["model", "version"]),
        ("nv_inference_exec_count", &["model", "version"]),
        ("nv_inference_request_duration_us", &["model", "version"]),
        ("nv_inference_queue_duration_us", &["model", "version"]),
        ("nv_inference_compute_input_duration_us", &["model", "version"]),
        ("nv_inference_compute_infer_duration_us", &["model", "version"]),
        ("nv_inference_compute_output_duration_us", &["model", "version"]),
        ("nv_inference_pending_request_count", &["model", "version"]),
        // Ours.
        ("caudal_stage_duration_seconds", &["stage"]),
        ("caudal_queue_duration_seconds", &["model"]),
        ("caudal_memory_pressure", &[]),
        ("caudal_memory_used_bytes", &["scope"]),
    ] {
        let family = families.get(name).unwrap_or_else(|| panic!("{name} is missing in {text}"));
        let expected: BTreeSet<&str> = labels.iter().copied().collect();
        assert!(!family.is_empty(), "{name} has no value");
        for own in family {
            assert_eq!(own.iter().copied().filter(|label| *label != "le").collect::<BTreeSet<_>>(), expected, "{name}");
        }
    }
    for line in [
        "http_requests_total{method=\"POST\",route=\"/v2/models/{model}/infer\",status=\"200\"} 3",
        "api_requests_total{method=\"POST\",endpoint=\"/v2/models/{model}/infer\",status=\"200\"} 3",
        "http_requests_total{method=\"GET\",route=\"/admin/memory\",status=\"401\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[test]
fn tritons_figures_add_up() {
    let server = busy(&[]);
    let of = |name: &str| server.metric(&format!("nv_inference_{name}"), r#"model="double",version="1""#);
    assert_eq!((of("request_success"), of("count"), of("pending_request_count")), (3.0, 6.0, 0.0));
    assert!((1.0..=3.0).contains(&of("exec_count")));
    let parts: f64 = ["queue", "compute_input", "compute_infer", "compute_output"]
        .map(|part| of(&format!("{part}_duration_us")))
        .iter()
        .sum();
    // Each is cut to whole microseconds.
    assert!(parts <= of("request_duration_us") + 4.0, "{parts} {}", of("request_duration_us"));
    assert!(of("request_duration_us") > 0.0);
    let failed = |reason: &str| server.metric("nv_inference_request_failure", &format!(r#"reason="{reason}""#));
    let before = failed("REJECTED") + failed("OTHER") + failed("CANCELED");
    assert_eq!(ask(&server, 1, r#""timeout": 1"#), 504, "a microsecond is not enough");
    let after = failed("REJECTED") + failed("OTHER") + failed("CANCELED");
    assert!(after <= before + 1.0 && failed("BACKEND") == 0.0, "{before} {after}");
}

#[test]
fn tritons_names_can_be_left_out_while_the_server_runs() {
    let repo = Repo::new().model("double", "double", "");
    let config = repo.path("caudal.yaml");
    fs::write(&config, "triton_metrics: true").unwrap();
    let server = Server::start(CAUDAL, &repo, &["--config", config.to_str().unwrap()]);
    assert!(server.get("/metrics").text().contains("nv_inference_count"));
    fs::write(&config, "triton_metrics: false").unwrap();
    server.signal("HUP");
    server.log_line("settings read again");
    assert!(!server.get("/metrics").text().contains("nv_inference_"));
}

#[test]
fn no_caller_can_make_a_series() {
    let server = busy(&[]);
    let series = || server.get("/metrics").text().lines().filter(|line| !line.starts_with('#')).count();
    let ask = |i: usize| {
        server.get(&format!("/nowhere/{i}?x={i}"));
        server.post_json(&format!("/v2/models/no{i}/infer"), "{}");
        server.post_picture(&format!("/predict/no{i}"), b"no picture");
    };
    ask(0);
    // Its own answer is a series from the second look on.
    series();
    let before = series();
    (1..20).for_each(ask);
    assert_eq!(series(), before);
}

#[test]
fn the_process_is_told_by_the_names_of_prometheus() {
    let server = busy(&[]);
    let of = |name: &str| server.metric(name, "");
    let (open, most) = (of("process_open_fds"), of("process_max_fds"));
    let counted = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as f64;
    assert!((open - counted).abs() <= 4.0 && open <= most, "{open} of {most}, {counted} counted");
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().count() as f64;
    assert!((of("process_threads") - threads).abs() <= 2.0, "{threads}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((of("process_start_time_seconds") - now).abs() < 600.0);
    assert!(of("process_cpu_seconds_total") > 0.0);
    let resident = server.resident() as f64;
    assert!((of("process_resident_memory_bytes") - resident).abs() < resident / 4.0);
}
