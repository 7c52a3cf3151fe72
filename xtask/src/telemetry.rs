//! `cargo xtask bench telemetry`: what it costs that a server looks at itself. The same program with and without, side by
//! side, turn by turn, on a model that takes microseconds and on one that looks at pictures.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    say::{self, Result, cargo, root, step},
    server::Server,
    setup,
};

/// The kernel counts CPU time for programs in hundredths of a second.
const TICKS: f64 = 100.0;
/// How much longer than its load a profile would take: it is given up when the load is over.
const LONGER: u64 = 60;

/// The key of servers that are profiled.
const ADMIN_KEY: &str = "caudal-bench-telemetry";

struct Options {
    program: Option<PathBuf>,
    secs: u64,
    reps: usize,
}

fn options(mut words: &[&str]) -> Result<Options> {
    let mut options = Options { program: None, secs: 4, reps: 8 };
    while let [name, value, rest @ ..] = words {
        let number = || value.parse().ok().filter(|number| *number > 0).ok_or(format!("{name} is a number above 0"));
        match *name {
            "--secs" => options.secs = number()?,
            "--reps" => options.reps = number()? as usize,
            "--caudal" => options.program = Some(PathBuf::from(value)),
            _ => break,
        }
        words = rest;
    }
    match words {
        [] => Ok(options),
        _ => Err(format!("bench telemetry takes --secs N, --reps N and --caudal PROGRAM, not {}", words.join(" "))),
    }
}

/// What is asked, and by how many connections.
struct Work {
    name: &'static str,
    connections: usize,
    script: PathBuf,
}

/// A way to serve it.
struct Way {
    name: &'static str,
    server: usize,
    /// Whether a CPU profile is taken meanwhile.
    profile: bool,
}

/// The first is what the others are held against.
const WAYS: [Way; 5] = [
    Way { name: "enable_profiling: false", server: 0, profile: false },
    Way { name: "as it comes", server: 1, profile: false },
    Way { name: "a CPU profile at 100 Hz", server: 1, profile: true },
    Way { name: "that, and traces of one request in a hundred", server: 2, profile: true },
    Way { name: "as it comes, heap not sampled", server: 3, profile: false },
];

/// One turn.
#[derive(Clone, Copy)]
struct Turn {
    per_second: f64,
    /// CPU time of the server for each request, in seconds.
    cpu: f64,
}

pub(crate) fn run(words: &[&str]) -> Result {
    let options = options(words)?;
    if Command::new("wrk").arg("-v").output().is_err() {
        return Err("wrk is missing: apt-get install wrk".to_owned());
    }
    let program = match &options.program {
        Some(program) => fs::canonicalize(program).map_err(|error| format!("{}: {error}", program.display()))?,
        None => {
            step("building caudal (release)");
            let tools = setup::run()?;
            say::run(tools.equip(cargo().args(["build", "--release", "--package", "caudal"])))?;
            say::target().join("release/caudal")
        }
    };
    let folder = say::target().join("bench/telemetry");
    let works = prepare(&folder).map_err(|error| format!("{} cannot be written: {error}", folder.display()))?;
    let servers = servers(&program, &folder.join("models"))?;
    for work in &works {
        step(&format!("{}: {} turns of {} s each way", work.name, options.reps, options.secs));
        // What is asked for the first time takes longer.
        for server in &servers {
            load(server, work, 1)?;
        }
        let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); WAYS.len()];
        for round in 0..options.reps {
            // Nobody is always the first, or always behind the same.
            for at in (0..WAYS.len()).map(|at| (at + round) % WAYS.len()) {
                turns[at].push(turn(&servers[WAYS[at].server], &WAYS[at], work, options.secs)?);
            }
        }
        println!("\n{}\n", table(work, &turns));
    }
    Ok(())
}

/// A repository of both models, and scripts that say what is asked.
fn prepare(folder: &Path) -> std::io::Result<Vec<Work>> {
    let put = |from: &str, name: &str| -> std::io::Result<()> {
        let to = folder.join("models").join(name).join("1");
        fs::create_dir_all(&to)?;
        fs::copy(root().join(from), to.join("model.onnx")).map(drop)
    };
    put("crates/testkit/models/double.onnx", "tiny")?;
    put("models/nanodet/1/model.onnx", "nanodet")?;
    let body = folder.join("tiny.json");
    fs::write(&body, r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#)?;
    let script = |name: &str, path: &str, body: &Path, media: &str| -> std::io::Result<PathBuf> {
        let script = folder.join(format!("{name}.lua"));
        let text = format!(
            "wrk.method = \"POST\"\nwrk.path = \"{path}\"\nwrk.headers[\"Content-Type\"] = \"{media}\"\n\
             local file = assert(io.open(\"{}\", \"rb\"))\nwrk.body = file:read(\"*a\")\n",
            body.display()
        );
        fs::write(&script, text)?;
        Ok(script)
    };
    let picture = root().join("fixtures/double_decker_bus.jpg");
    Ok(vec![
        Work {
            name: "a tiny model, 50 connections",
            connections: 50,
            script: script("tiny", "/v2/models/tiny/infer", &body, "application/json")?,
        },
        Work {
            name: "nanodet on a photograph, 4 connections",
            connections: 4,
            script: script("nanodet", "/predict/nanodet", &picture, "image/jpeg")?,
        },
    ])
}

/// The servers of all ways, each on a port of its own.
fn servers(program: &Path, models: &Path) -> Result<Vec<Server>> {
    let collector = collector().map_err(|error| format!("there is no collector: {error}"))?;
    let start = |more: &dyn Fn(&mut Command)| {
        Server::start(program, 0, |command| {
            command.env("CAUDAL_ADMIN_KEY", ADMIN_KEY);
            command.arg("--model-repository").arg(models).args(["--log-level", "error"]);
            more(command);
            command
        })
    };
    let mut servers = vec![
        start(&|command| _ = command.args(["--enable-profiling", "false"]))?,
        start(&|_| {})?,
        start(&|command| {
            let sampled = ["--otel-sampler", "traceidratio", "--otel-sampler-arg", "0.01"];
            command.args(["--otel-endpoint", &format!("http://{collector}")]).args(sampled);
        })?,
        start(&|command| _ = command.env("MALLOC_CONF", "prof:false"))?,
    ];
    servers.iter_mut().try_for_each(Server::wait_until_ready)?;
    Ok(servers)
}

/// Takes traces and forgets them: what a collector does with them is not what is measured. It ends with this program.
fn collector() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || forget(stream));
        }
    });
    Ok(address)
}

fn forget(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim().to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
                Some(_) => {}
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")?;
    }
}

fn turn(server: &Server, way: &Way, work: &Work, secs: u64) -> Result<Turn> {
    if !way.profile {
        return load(server, work, secs);
    }
    let head = format!(
        "GET /debug/pprof/profile?seconds={}&hz=100 HTTP/1.1\r\nX-Admin-Key: {ADMIN_KEY}\r\n",
        (secs + LONGER).min(300)
    );
    let profile = server.send(&head, b"").map_err(|error| format!("no profile could be asked for: {error}"))?;
    // What is new in the first moments is read once: unwind tables of all libraries.
    std::thread::sleep(Duration::from_millis(500));
    let turn = load(server, work, secs)?;
    still_silent(profile)?;
    Ok(turn)
}

/// A profile that has answered was not taken during the whole turn.
fn still_silent(mut profile: TcpStream) -> Result {
    let mut answer = [0; 512];
    let read = profile.set_nonblocking(true).and_then(|()| profile.read(&mut answer));
    match read {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Ok(length) => Err(format!("no profile was taken: {}", String::from_utf8_lossy(&answer[..length]))),
        Err(error) => Err(format!("no profile was taken: {error}")),
    }
}

/// Asks for `secs` seconds, each connection again as soon as it is answered.
fn load(server: &Server, work: &Work, secs: u64) -> Result<Turn> {
    let before = cpu_time(server)?;
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{}", work.connections), &format!("-d{secs}s"), "--timeout", "10s"]);
    command.arg("-s").arg(&work.script).arg(format!("http://{}", server.address())).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("wrk cannot be run: {error}"))?;
    let spent = cpu_time(server)? - before;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let told_wrongly = || format!("wrk was not answered as it should be:\n{told}");
    if !output.status.success() || told.contains("Non-2xx") || told.contains("Socket errors") {
        return Err(told_wrongly());
    }
    let answered = |line: &str| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok();
    let rate = |line: &str| line.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok();
    let requests = told.lines().find_map(answered).filter(|requests| *requests > 0.0).ok_or_else(told_wrongly)?;
    Ok(Turn { per_second: told.lines().find_map(rate).ok_or_else(told_wrongly)?, cpu: spent / requests })
}

/// CPU time of all threads that the server has or had, in seconds.
fn cpu_time(server: &Server) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).map_err(|error| error.to_string())?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // `utime` and `stime`, the 14th and 15th of all, behind two that are not counted here.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).ok_or("the kernel tells no CPU time of the server")?;
    Ok((ticks.0 + ticks.1) / TICKS)
}

/// Medians, and how each way stands to the first: the median over turns of the ratio within a turn, with the least and most.
fn table(work: &Work, turns: &[Vec<Turn>]) -> String {
    let mut text = format!(
        "| {} | requests/s | beside | CPU a request | beside (least to most) |\n|---|---|---|---|---|\n",
        work.name
    );
    for (way, own) in WAYS.iter().zip(turns) {
        let of = |value: fn(&Turn) -> f64| median(own.iter().map(value).collect());
        let beside = |value: fn(&Turn) -> f64| -> Vec<f64> {
            own.iter().zip(&turns[0]).map(|(own, first)| 100.0 * (value(own) / value(first) - 1.0)).collect()
        };
        let (rate, cpu) = (beside(|turn| turn.per_second), beside(|turn| turn.cpu));
        let (least, most) =
            (cpu.iter().copied().fold(f64::MAX, f64::min), cpu.iter().copied().fold(f64::MIN, f64::max));
        text += &format!(
            "| {} | {:.0} | {:+.1} % | {} | {:+.1} % ({least:+.1} to {most:+.1}) |\n",
            way.name,
            of(|turn| turn.per_second),
            median(rate),
            shown(of(|turn| turn.cpu)),
            median(cpu),
        );
    }
    text
}

fn shown(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.2} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ if values.is_empty() => f64::NAN,
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_held_against_the_first_turn_by_turn() {
        let turn = |per_second, cpu| Turn { per_second, cpu };
        // The machine was half as quick in the second turn: that falls on both.
        let first = vec![turn(100.0, 1e-5), turn(50.0, 2e-5), turn(100.0, 1e-5)];
        let other = vec![turn(90.0, 1.1e-5), turn(45.0, 2.2e-5), turn(95.0, 1.2e-5)];
        let work = Work { name: "work", connections: 1, script: PathBuf::new() };
        let table = table(&work, &[first, other]);
        assert!(
            table.contains("| enable_profiling: false | 100 | +0.0 % | 10.00 µs | +0.0 % (+0.0 to +0.0) |"),
            "{table}"
        );
        assert!(table.contains("| 90 | -10.0 % | 12.00 µs | +10.0 % (+10.0 to +20.0) |"), "{table}");
        assert_eq!((median(vec![3.0, 1.0]), median(vec![5.0, 1.0, 2.0])), (2.0, 2.0));
    }

    #[test]
    fn words_that_are_not_known_are_refused() {
        assert!(options(&["--secs", "2", "--reps", "1"]).is_ok_and(|options| options.secs == 2 && options.reps == 1));
        assert!(
            options(&["--secs", "0"]).is_err() && options(&["--sec", "1"]).is_err() && options(&["--secs"]).is_err()
        );
    }
}
