//! CPU profiles compared with the kernel's CPU clocks.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    hint::black_box,
    io::Read,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use caudal_profiler::{Format, Profile, ProfileError, Recording, Stack};

/// Serialises the tests, because there is one recording at a time.
static RECORDING_LOCK: Mutex<()> = Mutex::new(());

fn lock_recording() -> std::sync::MutexGuard<'static, ()> {
    RECORDING_LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// CPU time of the calling thread, by the scheduler's own count.
fn thread_cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[inline(never)]
fn burn_much(time: Duration) -> Duration {
    // Not a tail call, so that the caller stays on the stack.
    black_box(burn(time))
}

#[inline(never)]
fn burn_little(time: Duration) -> Duration {
    // Not a tail call, so that the caller stays on the stack.
    black_box(burn(time))
}

#[inline(never)]
fn burn(time: Duration) -> Duration {
    let (before, end) = (thread_cpu_time(), Instant::now() + time);
    let mut number = 1u64;
    while Instant::now() < end {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    thread_cpu_time() - before
}

fn has_frame(stack: &Stack, part: &str) -> bool {
    stack.frames.iter().any(|frame| frame.contains(part))
}

fn spawn_named(name: &str, work: impl FnOnce() -> Vec<Duration> + Send + 'static) -> thread::JoinHandle<Vec<Duration>> {
    thread::Builder::new().name(name.to_owned()).spawn(work).unwrap()
}

fn record_profile(work: impl FnOnce()) -> Profile {
    let recording = Recording::start(1000).unwrap();
    work();
    recording.finish().unwrap()
}

#[test]
fn profile_shares_match_the_cpu_clocks() {
    let _turn = lock_recording();
    let mut spent = Vec::new();
    let profile = record_profile(|| {
        let both = |name: &str, rounds: u32| {
            spawn_named(name, move || {
                let mut spent = vec![Duration::ZERO; 2];
                for _ in 0..rounds {
                    spent[0] += burn_much(Duration::from_millis(30));
                    spent[1] += burn_little(Duration::from_millis(10));
                }
                spent
            })
        };
        let threads = [both("much", 90), both("less", 30)];
        spent = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    });
    let seconds = |time: Duration| time.as_secs_f64();
    let total: f64 = spent.iter().flatten().copied().map(seconds).sum();
    let check = |what: &str, truth: f64, found: f64| {
        println!("{what}: {:.1} % by the clocks, {:.1} % of the samples", 100.0 * truth, 100.0 * found);
        assert!((truth - found).abs() < 0.03, "{what}: {truth:.3} by the clocks, {found:.3} of the samples");
    };
    let of = |name: &str| profile.share_where(|stack| has_frame(stack, name));
    check("burn_much", (seconds(spent[0][0]) + seconds(spent[1][0])) / total, of("burn_much"));
    check("burn_little", (seconds(spent[0][1]) + seconds(spent[1][1])) / total, of("burn_little"));
    let thread = |name: &str| profile.share_where(|stack| stack.frames[0] == name);
    check("the thread much", (seconds(spent[0][0]) + seconds(spent[0][1])) / total, thread("much"));
    let found = profile.total_amount() as f64 / 1e9;
    assert!((found / total - 1.0).abs() < 0.1, "{total:.2} s by the clocks, {found:.2} s of the samples");
    assert_eq!((profile.lost, profile.truncated), (0, 0), "{}", profile.to_collapsed());
    assert!(profile.stacks.iter().all(|stack| !stack.frames[1].contains("lang_start")), "runtime frames are omitted");
}

#[test]
fn profile_of_an_idle_process_is_idle() {
    let _turn = lock_recording();
    let recording = Recording::start(100).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert!(recording.finish().unwrap().is_idle());
}

#[test]
fn recording_is_exclusive_and_limits_its_rate() {
    let _turn = lock_recording();
    let first = Recording::start(100).unwrap();
    assert!(matches!(Recording::start(100), Err(ProfileError::Busy)));
    drop(first);
    let end = Instant::now() + Duration::from_secs(10);
    while Recording::start(100).is_err() {
        assert!(Instant::now() < end, "a dropped recording stops");
        thread::sleep(Duration::from_millis(1));
    }
    for hz in [0, 1001] {
        let error = Recording::start(hz).unwrap_err();
        assert!(error.to_string().contains("1 to 1000"), "{error}");
    }
}

#[test]
fn all_formats_have_the_same_weights() {
    let _turn = lock_recording();
    let profile = record_profile(|| {
        burn_much(Duration::from_millis(300));
    });
    let text = |format: Format| String::from_utf8(format.write(&profile).unwrap()).unwrap();
    let weights =
        |text: &str| -> u64 { text.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum() };
    assert_eq!(weights(&text(Format::Collapsed)), profile.total_count());
    let read = Profile::from_bytes(&Format::Pprof.write(&profile).unwrap()).unwrap();
    assert_eq!(read.stacks, profile.stacks);
    let svg = text(Format::Svg);
    assert!(svg.contains("burn_much") && svg.trim_end().ends_with("</svg>"));
    let speedscope: serde_json::Value = serde_json::from_str(&text(Format::Speedscope)).unwrap();
    let sum = |profile: &serde_json::Value| -> u64 {
        profile["weights"].as_array().unwrap().iter().map(|weight| weight.as_u64().unwrap()).sum()
    };
    assert_eq!(speedscope["profiles"].as_array().unwrap().iter().map(sum).sum::<u64>(), profile.total_amount());
}

/// Reads pprof by the field numbers of its format, independently of our protobuf file.
#[test]
fn pprof_output_follows_the_format() {
    let _turn = lock_recording();
    let profile = record_profile(|| {
        burn_little(Duration::from_millis(300));
    });
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*Format::Pprof.write(&profile).unwrap()).read_to_end(&mut bytes).unwrap();
    let fields = fields(&bytes);
    let of = |number: u64| fields.iter().filter(move |(field, _)| *field == number).map(|(_, value)| value);
    let texts: Vec<String> = of(6).map(|value| String::from_utf8(value.bytes().to_vec()).unwrap()).collect();
    assert_eq!(texts[0], "");
    let kinds: Vec<(String, String)> = of(1)
        .map(|value| {
            let kind = self::fields(value.bytes());
            (texts[kind[0].1.number() as usize].clone(), texts[kind[1].1.number() as usize].clone())
        })
        .collect();
    let kind = |kind: &str, unit: &str| (kind.to_owned(), unit.to_owned());
    assert_eq!(kinds, [kind("samples", "count"), kind("cpu", "nanoseconds")]);
    let functions: Vec<&String> =
        of(5).map(|value| &texts[self::fields(value.bytes())[1].1.number() as usize]).collect();
    assert!(functions.iter().any(|name| name.contains("burn_little")), "{functions:?}");
    let nanoseconds: u64 = of(2)
        .map(|value| {
            let sample = self::fields(value.bytes());
            let values = sample.iter().find(|(field, _)| *field == 2).unwrap().1.bytes();
            varints(values)[1]
        })
        .sum();
    assert_eq!(nanoseconds, profile.total_amount());
    let period = of(12).next().unwrap().number();
    assert_eq!(period, 1_000_000);
}

#[derive(Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Value {
    fn number(&self) -> u64 {
        let Self::Number(number) = self else { panic!("{self:?}") };
        *number
    }

    fn bytes(&self) -> &[u8] {
        let Self::Bytes(bytes) = self else { panic!("{self:?}") };
        bytes
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return number;
        }
    }
}

fn varints(mut bytes: &[u8]) -> Vec<u64> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(varint(&mut bytes));
    }
    all
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, value));
    }
    all
}
