//! One plan for the cores: a quota and a cpuset are kept to, and what runs at once stays within them.
//!
//! Short in the suite; `cargo xtask soak` runs it in full, in release, and asserts how often the kernel may hold the
//! process back. Where no cgroup can be made (not root, or read-only), quotas are skipped, and said so.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command, sync::Mutex, time::Duration,
};

use caudal_testkit::{
    Quota, Repo, Server, fixture,
    http::post,
    load::{Load, quantile},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// Figures would be worth nothing while another test shares the cores.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A program that does `first` in its shell and then is the server.
fn within(home: &Path, first: &str, before: &str) -> String {
    let script = home.join("within");
    fs::write(&script, format!("#!/bin/sh\n{first}\nexec {before} {CAUDAL} \"$@\"\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script.display().to_string()
}

/// How many threads bear each name, numbers left out.
fn threads(server: &Server) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let kind = name.trim().split('-').next().unwrap_or_default().to_owned();
        *names.entry(kind).or_default() += 1;
    }
    names
}

fn cpus(server: &Server) -> u64 {
    server.get("/health").json()["performance"]["cpus"].as_u64().unwrap()
}

/// The cores that the kernel runs it on.
fn cores(server: &Server) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
}

fn allowed() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// Keeps more clients busy than there are cores; gives the answers a second and their p99.
fn work(server: &Server, seconds: u64) -> (f64, f64) {
    let picture = fixture("double_decker_bus.jpg");
    let load = Load { connections: 8, duration: Duration::from_secs(seconds), rate: None };
    let samples = load.run(server.address(), &post("/predict/nanodet?timeout_ms=20000", &[], &picture));
    assert!(samples.iter().all(|sample| sample.status == 200), "{samples:?}");
    let times: Vec<f64> = samples.iter().map(|sample| sample.server_ms).collect();
    (samples.len() as f64 / seconds as f64, quantile(&times, 0.99))
}

#[test]
fn a_quota_is_the_size_of_the_machine() {
    let _alone = alone();
    // Only to compare: the server reads this variable too.
    let pinned = std::env::var("CAUDAL_PIN_TO_QUOTA").as_deref() != Ok("false");
    for quota in [0.5, 1.0, 1.5, 2.0, 4.0] {
        let Some(group) = Quota::new(quota) else {
            return eprintln!("skipped: no cgroup can be made here (that takes root and a writable /sys/fs/cgroup)");
        };
        let home = tempfile::tempdir().unwrap();
        let join = format!("echo $$ > {}/cgroup.procs", group.folder().display());
        let server = Server::start(&within(home.path(), &join, ""), &Repo::nanodet(""), &[]);
        let expected = (quota as usize).clamp(1, allowed());
        assert_eq!(cpus(&server), expected as u64, "a quota of {quota}");
        // A list of one core is one number.
        assert!(!pinned || expected != 1 || cores(&server).parse::<usize>().is_ok(), "{}", cores(&server));
        let threads = threads(&server);
        assert_eq!((threads["io"], threads["decode"]), (expected.min(8), expected), "{threads:?}");
        let health = server.get("/health").json();
        let model = &health["models"]["nanodet"];
        assert_eq!(model["instances"].as_u64().unwrap() * model["threads"].as_u64().unwrap(), expected as u64);

        let before = group.periods();
        let (rate, p99) = work(&server, if full() { 15 } else { 1 });
        let after = group.periods();
        let (periods, held) = (after.0 - before.0, after.1 - before.1);
        let held_ms = (after.2 - before.2) as f64 / 1e6;
        let percent = 100.0 * held as f64 / periods.max(1) as f64;
        println!(
            "| {quota} CPUs | planned {expected} | {rate:.1} answers/s | p99 {p99:.0} ms | held back in {held} of {periods} periods, {percent:.1} %, for {held_ms:.0} ms of threads' time | {threads:?} |"
        );
        // Less than a core cannot be kept to by having fewer threads: one alone wants more. At exactly a whole number of
        // cores the last microseconds of many periods are cut off: what counts is for how long.
        let share = 100.0 * held_ms / (periods as f64 * Quota::PERIOD_US as f64 / 1e3);
        assert!(
            !full() || !pinned || quota < 1.0 || share <= 1.0,
            "a quota of {quota}: held back for {share:.2} % of the time"
        );
    }
}

#[test]
fn a_restricted_cpuset_is_the_size_of_the_machine() {
    let _alone = alone();
    let last = allowed() - 1;
    if Command::new("taskset").args(["-c", &last.to_string(), "true"]).status().is_err() {
        return eprintln!("skipped: there is no taskset here");
    }
    let home = tempfile::tempdir().unwrap();
    let program = within(home.path(), "", &format!("taskset -c {last}"));
    let server = Server::start(&program, &Repo::nanodet("threads: 2"), &[]);
    assert_eq!(cpus(&server), 1);
    assert_eq!((threads(&server)["io"], threads(&server)["decode"]), (1, 1));
    work(&server, 1);
    let log = server.log();
    // ONNX Runtime would say so if it tried to bind threads to cores that it may not have.
    assert!(!log.to_lowercase().contains("affinity"), "{log}");
    assert_eq!(cores(&server), last.to_string());
}
