//! What only shows after a while: overload, thousands of requests, many huge pictures, idling.
//!
//! Each test has two lengths. In the suite it takes seconds and asserts what must hold on any machine, in any build.
//! `cargo xtask soak` runs it in full, in release, asserts the bars of `docs/performance.md` and prints the figures.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    net::SocketAddr,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, fixture,
    http::{self, Connection, post, tensor_request},
    load::{Load, Sample, quantile},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const PICTURE: &[(&str, &str)] = &[("Content-Type", "image/jpeg")];
const MIB: f64 = (1 << 20) as f64;

/// Whether this is the full run.
fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// The first in the suite, the second in full.
fn either<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// Figures would be worth nothing while another test shares the cores.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Tells a figure, and in full asserts that it keeps its bar.
fn figure(name: &str, value: f64, unit: &str, bar: f64, kept: impl Fn(f64, f64) -> bool) {
    println!("| {name} | {value:.2} {unit} | {bar:.2} {unit} |");
    assert!(!full() || kept(value, bar), "{name}: {value:.2} {unit}, and the bar is {bar:.2}");
}

fn at_most(name: &str, value: f64, unit: &str, bar: f64) {
    figure(name, value, unit, bar, |value, bar| value <= bar);
}

fn at_least(name: &str, value: f64, unit: &str, bar: f64) {
    figure(name, value, unit, bar, |value, bar| value >= bar);
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn rate_of_success(samples: &[Sample], seconds: f64) -> f64 {
    samples.iter().filter(|sample| sample.status == 200).count() as f64 / seconds
}

#[test]
fn overload_wastes_nothing() {
    let _alone = alone();
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    let picture = fixture("double_decker_bus.jpg");
    let run = |connections, duration, rate, timeout_ms: u32| {
        let path = format!("/predict/nanodet?timeout_ms={timeout_ms}");
        Load { connections, duration, rate }.run(server.address(), &post(&path, PICTURE, &picture))
    };
    let warm = either(Duration::from_secs(1), Duration::from_secs(15));
    let time = either(Duration::from_secs(3), Duration::from_secs(60));
    let peak = rate_of_success(&run(4, warm, None, 5_000), warm.as_secs_f64());
    assert!(peak > 0.0);
    let timeout = 500;
    let (samples, filled) = thread::scope(|scope| {
        // The queue fills at first; from then on nothing may grow.
        let filled = scope.spawn(|| {
            thread::sleep(time / 6);
            server.resident() as f64
        });
        (run(96, time, Some(3.0 * peak), timeout), filled.join().unwrap())
    });
    let goodput = rate_of_success(&samples, time.as_secs_f64());
    for sample in &samples {
        let told = matches!(
            (sample.status, sample.code.as_str()),
            (200, _) | (429, "queue_full" | "deadline_unreachable") | (504, "deadline_exceeded")
        );
        assert!(told, "{sample:?}");
        let late = sample.status == 200 && sample.server_ms > f64::from(timeout);
        assert!(!late, "a 200 after its deadline: {sample:?}");
    }
    let refused: Vec<f64> =
        samples.iter().filter(|sample| sample.status == 429).map(|sample| sample.server_ms).collect();
    assert!(!refused.is_empty(), "three times the capacity, and nobody is turned away");
    let late = samples.iter().filter(|sample| sample.status == 504).count() as f64;
    println!(
        "peak {peak:.1}/s, {} sent at {:.1}/s, {} refused, {late} too late",
        samples.len(),
        3.0 * peak,
        refused.len()
    );
    at_least("goodput at 3 times capacity, of peak", 100.0 * goodput / peak, "%", 90.0);
    at_most("server time of a 429, p99", quantile(&refused, 0.99), "ms", 5.0);
    at_most("memory gained meanwhile", 100.0 * (server.resident() as f64 / filled - 1.0), "%", 5.0);
}

#[test]
fn memory_does_not_grow_with_requests() {
    let _alone = alone();
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    let pictures = ["double_decker_bus.jpg", "chelsea.png", "coffee.png"].map(fixture);
    let send = |count: usize| {
        thread::scope(|scope| {
            for client in 0..4 {
                let (pictures, address) = (&pictures, server.address());
                scope.spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    for i in 0..count / 4 {
                        let ask = post("/predict/nanodet", &[], &pictures[(i + client) % pictures.len()]);
                        let ask = http::Ask { headers: PICTURE, ..ask };
                        assert_eq!(connection.ask(&ask).unwrap().status, 200);
                    }
                });
            }
        });
        server.resident() as f64
    };
    let first = send(either(200, 1_000));
    let last = send(either(200, 9_000));
    println!("resident: {:.1} MiB, then {:.1} MiB", first / MIB, last / MIB);
    at_most("memory after 10,000 requests over that after 1,000", 100.0 * (last / first - 1.0), "%", 5.0);
}

#[test]
fn many_huge_pictures_stay_within_the_memory_set_aside() {
    let _alone = alone();
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &["--max-pixel-memory-mb", "512"]);
    let idle = server.resident();
    let (width, height) = (9_000, 6_666);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (i / 4096) as u8).collect();
    let jpeg = caudal_vision::encode_jpeg(width, height, &rgb).unwrap();
    drop(rgb);
    let clients: Vec<_> = (0..either(8, 64))
        .map(|_| {
            let (jpeg, address) = (jpeg.clone(), server.address());
            thread::spawn(move || http::once(address, &post("/predict/nanodet", PICTURE, &jpeg)).unwrap())
        })
        .collect();
    for client in clients {
        let answer = client.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let most = (server.peak() - idle) as f64 / MIB;
    println!("a file has {:.1} MiB, its pixels {:.1} MiB", jpeg.len() as f64 / MIB, (width * height * 3) as f64 / MIB);
    // The uploads themselves are memory too: what is set aside for them counts as well.
    let uploads = (jpeg.len() as f64 * either(8.0, 64.0) / MIB).min(256.0);
    at_most("memory above idle with 64 pictures of 60 MP", most, "MiB", 512.0 + uploads + 64.0);
    assert!(most <= 512.0 + uploads + 64.0, "{most} MiB");
}

#[test]
fn who_is_idle_uses_nothing() {
    let _alone = alone();
    let began = Instant::now();
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    until("it is ready", || server.get("/readyz").status == 200);
    let started = began.elapsed();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let time = either(Duration::from_secs(2), Duration::from_secs(20));
    thread::sleep(Duration::from_millis(200));
    let before = ticks();
    thread::sleep(time);
    let percent = (ticks() - before) as f64 / time.as_secs_f64();
    at_most("processor time of an idle server", percent, "%", 0.1);
    at_most("resident memory of an idle server", server.resident() as f64 / MIB, "MiB", 150.0);
    at_most("start to ready", started.as_secs_f64() * 1e3, "ms", 300.0);
    assert!(percent <= 2.0, "an idle server is not idle: {percent} %");
}

/// One instance of the slow model, busy for as long as the connection is held.
fn busy() -> (Server, Connection) {
    let yaml = "instances: 1\nthreads: 1\nbatching: {max_batch_size: 1000}";
    let server = Server::start(CAUDAL, &Repo::new().model("slow", "slow", yaml), &[]);
    let running = send(&server, 1_000);
    until("the model runs", || depth(&server, "busy_instances") == 1);
    (server, running)
}

/// Asks the slow model for `rows` rows and does not wait for the answer.
fn send(server: &Server, rows: usize) -> Connection {
    let body = tensor_request(&vec![[1.0; 4]; rows], "");
    let mut connection = Connection::open(server.address()).unwrap();
    connection.send_head(&post("/v2/models/slow/infer", &[], body.as_bytes())).unwrap();
    connection.send(body.as_bytes()).unwrap();
    connection
}

fn depth(server: &Server, what: &str) -> u64 {
    server.get("/health").json()["models"]["slow"][what].as_u64().unwrap()
}

#[test]
fn deadlines_fire_on_time_while_everything_is_busy() {
    let _alone = alone();
    let (server, running) = busy();
    let mut late = Vec::new();
    for i in 0..either(10, 200) {
        let after = Duration::from_millis(50 + i % 7);
        let body = tensor_request(&[[1.0; 4]], &format!("\"timeout\":{}", after.as_micros()));
        let began = Instant::now();
        let answer = server.post_json("/v2/models/slow/infer", &body);
        late.push((began.elapsed().saturating_sub(after)).as_secs_f64() * 1e3);
        assert_eq!(answer.status, 504, "{}", answer.text());
    }
    drop(running);
    at_most("a 504 after its deadline while every instance is busy, p99", quantile(&late, 0.99), "ms", 10.0);
    let late = pictures_that_expire_before_they_are_decoded();
    at_most("a 504 after its deadline while every decode thread is busy, p99", quantile(&late, 0.99), "ms", 10.0);
}

/// Pictures that wait for a decode thread while all are busy with huge ones: how late their 504 is, by the server's
/// clock, for here two dozen clients share the cores with it.
fn pictures_that_expire_before_they_are_decoded() -> Vec<f64> {
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    let (width, height) = (8_000, 7_500);
    let jpeg = caudal_vision::encode_jpeg(width, height, &vec![90; width * height * 3]).unwrap();
    let bus = fixture("double_decker_bus.jpg");
    let address = server.address();
    let mut late = Vec::new();
    for _ in 0..either(1, 10) {
        let hogs: Vec<_> = (0..8)
            .map(|_| {
                let jpeg = jpeg.clone();
                thread::spawn(move || http::once(address, &post("/predict/nanodet", PICTURE, &jpeg)).unwrap())
            })
            .collect();
        until("they are being decoded", || server.metric("caudal_pixel_memory_bytes", "") >= 300.0 * MIB);
        let clients: Vec<_> = (0..10).map(|_| expire(address, &bus, Duration::from_millis(40))).collect();
        late.extend(clients.into_iter().filter_map(|client| client.join().unwrap()));
        hogs.into_iter().for_each(|hog| drop(hog.join().unwrap()));
    }
    println!("{} pictures expired before they were decoded", late.len());
    late
}

fn expire(address: SocketAddr, picture: &[u8], after: Duration) -> thread::JoinHandle<Option<f64>> {
    let picture = picture.to_vec();
    thread::spawn(move || {
        let path = format!("/predict/nanodet?timeout_ms={}&priority=low", after.as_millis());
        let answer = http::once(address, &post(&path, PICTURE, &picture)).unwrap();
        assert!(matches!(answer.status, 200 | 429 | 504), "{}", answer.text());
        let took: f64 = answer.header("x-process-time").trim_end_matches("ms").parse().unwrap();
        (answer.status == 504).then_some(took - after.as_secs_f64() * 1e3)
    })
}

#[test]
fn who_hangs_up_is_noticed_at_once() {
    let _alone = alone();
    let (server, running) = busy();
    let mut freed = Vec::new();
    for _ in 0..either(5, 100) {
        let waiting = send(&server, 1);
        until("it waits", || depth(&server, "queue_depth") == 1);
        let began = Instant::now();
        drop(waiting);
        until("its place is free", || depth(&server, "queue_depth") == 0);
        freed.push(began.elapsed().as_secs_f64() * 1e3);
    }
    drop(running);
    at_most("a place freed after its client hung up, p99", quantile(&freed, 0.99), "ms", 50.0);
}
