//! `cargo xtask demo`: from nothing to boxes on a photograph.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    time::{Duration, Instant},
};

use caudal_types::Stage;
use serde_json::Value;

use crate::{
    say::{self, Result, cargo, root, step},
    setup,
};

const PHOTOGRAPH: &str = "fixtures/double_decker_bus.jpg";
const READY_WITHIN: Duration = Duration::from_secs(30);

struct Options {
    exit: bool,
    port: u16,
}

fn options(mut words: &[&str]) -> Result<Options> {
    let mut options = Options { exit: false, port: 8000 };
    while let [word, rest @ ..] = words {
        words = rest;
        match (*word, rest) {
            ("--exit", _) => options.exit = true,
            ("--port", [port, rest @ ..]) => {
                options.port = port.parse().map_err(|_| format!("--port takes a number, not {port:?}"))?;
                words = rest;
            }
            _ => return Err(format!("demo takes --exit and --port N, not {word:?}")),
        }
    }
    Ok(options)
}

pub(crate) fn run(words: &[&str]) -> Result {
    let options = options(words)?;
    let tools = setup::run()?;
    step("building caudal (release)");
    say::run(tools.equip(cargo().args(["build", "--release", "--package", "caudal"])))?;
    step("starting the server with the demo detector");
    let mut server = Server::start(options.port)?;
    server.wait_until_ready()?;

    step(&format!("asking it what is in {PHOTOGRAPH}"));
    let picture = fs::read(root().join(PHOTOGRAPH)).map_err(|error| format!("{PHOTOGRAPH} cannot be read: {error}"))?;
    // The first request after a start pays for memory that later ones find warm.
    server.post("/predict/small", &picture)?;
    let answer = server.post("/predict/small", &picture)?;
    print!("{}", table(&answer)?);
    let drawn = root().join("out/demo.jpg");
    fs::create_dir_all(root().join("out")).map_err(|error| error.to_string())?;
    fs::write(&drawn, server.post("/predict/small?draw=true", &picture)?).map_err(|error| error.to_string())?;
    println!("\nwith the boxes on it: {}", drawn.display());

    if options.exit {
        return server.stop();
    }
    let url = format!("http://127.0.0.1:{}", options.port);
    println!(
        "\nThe server is running:\n  {url}/docs     the API, to read and to try\n  {url}/health   its state\n  {url}/metrics  for Prometheus"
    );
    println!("\nTry it:\n  curl -F file=@{PHOTOGRAPH} {url}/predict/small\n\nStop it with Ctrl-C.");
    server.wait()
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(port: u16) -> Result<Self> {
        let binary = say::target().join("release/caudal");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Whoever answers there now is not the server that is about to start.
        TcpListener::bind(address)
            .map_err(|error| format!("port {port} cannot be used ({error}); choose another with --port N"))?;
        let mut command = Command::new(&binary);
        command.current_dir(root()).args(["serve", "--host", "127.0.0.1", "--http-port", &port.to_string()]);
        let child = command.spawn().map_err(|error| format!("{} cannot be run: {error}", binary.display()))?;
        Ok(Self { child, address })
    }

    fn wait_until_ready(&mut self) -> Result {
        let end = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server did not start ({status}); its last words stand above"));
            }
            if self.request("GET /readyz HTTP/1.1\r\n", b"").is_ok() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err("the server was not ready in time".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn post(&self, path: &str, picture: &[u8]) -> Result<Vec<u8>> {
        self.request(
            &format!("POST {path} HTTP/1.1\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n", picture.len()),
            picture,
        )
    }

    fn request(&self, head: &str, body: &[u8]) -> Result<Vec<u8>> {
        let talk = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(format!("{head}Host: demo\r\nConnection: close\r\n\r\n").as_bytes())?;
            stream.write_all(body)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let answer = talk().map_err(|error| format!("the server did not answer: {error}"))?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer has no end to its head")?;
        let (head, body) = (&answer[..end], &answer[end + 4..]);
        match head.starts_with(b"HTTP/1.1 200") {
            true => Ok(body.to_vec()),
            false => Err(format!("the server answered {}", String::from_utf8_lossy(&answer))),
        }
    }

    /// Leaves it in the foreground until it ends.
    fn wait(&mut self) -> Result {
        self.child.wait().map(drop).map_err(|error| error.to_string())
    }

    /// Lets it end in its own way.
    fn stop(&mut self) -> Result {
        say::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the server did not end well ({status})")) }
    }
}

/// The boxes and the time of an answer, for people.
fn table(answer: &[u8]) -> Result<String> {
    let answer: Value = serde_json::from_slice(answer).map_err(|error| format!("the answer is no JSON: {error}"))?;
    let mut text = String::from("\n  class        conf      x1      y1      x2      y2\n");
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
    for found in answer["detections"].as_array().into_iter().flatten() {
        let [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map(|corner| number(found, corner));
        let (class, conf) = (found["class"].as_str().unwrap_or("?"), number(found, "confidence"));
        let _ = writeln!(text, "  {class:<12} {conf:.2}  {x1:6.1}  {y1:6.1}  {x2:6.1}  {y2:6.1}");
    }
    let timings = &answer["timings_ms"];
    let total = number(timings, "total");
    text.push('\n');
    for name in Stage::ALL.map(Stage::name).into_iter().chain(["total"]) {
        let spent = number(timings, name);
        if spent.is_finite() {
            let _ =
                writeln!(text, "  {name:<12} {spent:7.3} ms  {}", "▪".repeat((spent / total * 50.0).ceil() as usize));
        }
    }
    Ok(text)
}
