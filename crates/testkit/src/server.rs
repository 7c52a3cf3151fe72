//! A real server process on a port of its own.

use std::{
    fs::{self, File},
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Repo,
    http::{self, Answer, Ask, Connection},
};

/// A server that is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: tempfile::NamedTempFile,
    home: tempfile::TempDir,
    /// The admin key of its arguments, if any.
    key: Option<String>,
    /// The file of its admin token, if it has one.
    token: Option<PathBuf>,
}

/// A server that the tests of one file share: it starts when the first needs it and goes when the last is done.
/// (A static would never be dropped, and its process would outlive the suite.)
#[derive(Debug)]
pub struct Shared {
    server: Mutex<Weak<Server>>,
    start: fn() -> Server,
}

impl Shared {
    /// A server that `start` starts.
    pub const fn new(start: fn() -> Server) -> Self {
        Self { server: Mutex::new(Weak::new()), start }
    }

    /// The server.
    pub fn get(&self) -> Arc<Server> {
        let mut shared = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new((self.start)());
            *shared = Arc::downgrade(&server);
            server
        })
    }
}

impl Server {
    /// Starts `binary` (the test's `CARGO_BIN_EXE_caudal`) on the models of `repo` with further `arguments`, and
    /// waits until it listens.
    pub fn start(binary: &str, repo: &Repo, arguments: &[&str]) -> Self {
        Self::start_at(binary, &repo.path(""), arguments)
    }

    /// The same with a repository that lies anywhere.
    pub fn start_at(binary: &str, repository: &Path, arguments: &[&str]) -> Self {
        Self::start_in(binary, repository, arguments, &[])
    }

    /// The same with `variables` in its environment.
    pub fn start_in(binary: &str, repository: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let out = || Stdio::from(File::options().append(true).open(log.path()).unwrap());
        let mut command = Command::new(binary);
        command.envs(variables.iter().copied());
        command.args(["serve", "--http-port", "0", "--model-repository"]).arg(repository).args(arguments);
        let child = command.current_dir(home.path()).stdout(out()).stderr(out()).spawn().unwrap();
        let key = arguments.iter().skip_while(|flag| **flag != "--admin-key").nth(1).map(|key| (*key).to_owned());
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log, home, key, token: None };
        server.address = server.wait_for_address();
        let log = server.log();
        let file = log.split("admin routes need the token in ").nth(1).and_then(|rest| rest.split(['\n', '"']).next());
        server.token = file.map(|file| PathBuf::from(file.trim()));
        server
    }

    /// What admin routes are asked with: the key of its arguments, or the token that it has made.
    pub fn admin_credential(&self) -> Option<String> {
        let token = || fs::read_to_string(self.token.as_ref()?).ok().map(|token| token.trim().to_owned());
        self.key.clone().or_else(token)
    }

    /// The file of the token that it has made, if it has made one.
    pub fn token_file(&self) -> Option<&Path> {
        self.token.as_deref()
    }

    fn wait_for_address(&mut self) -> SocketAddr {
        let end = Instant::now() + http::PATIENCE;
        loop {
            let log = self.log();
            let after = log.split("listening on http://").nth(1);
            if let Some(address) = after.and_then(|rest| rest.split_whitespace().next()) {
                return address.parse().unwrap_or_else(|_| panic!("no address: {log}"));
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended: {log}");
            assert!(Instant::now() < end, "the server does not listen: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its working folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        let mut text = String::new();
        File::open(self.log.path()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// The line of the log that holds `words`; waits for it.
    pub fn log_line(&self, words: &str) -> String {
        let end = Instant::now() + http::PATIENCE;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "{words:?} is not in the log: {log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends one request on a connection of its own, to admin routes with the credential.
    pub fn ask(&self, ask: &Ask<'_>) -> Answer {
        self.ask_at(self.address, ask)
    }

    /// The same at another address of this server.
    pub fn ask_at(&self, address: SocketAddr, ask: &Ask<'_>) -> Answer {
        let connection = Connection::open(address).map(|connection| connection.with_admin(self.admin_credential()));
        connection
            .and_then(|mut connection| connection.ask(ask))
            .unwrap_or_else(|error| panic!("{}: {error}; {}", ask.path, self.log()))
    }

    /// Asks a question.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&http::get(path))
    }

    /// Posts a picture as the body.
    pub fn post_picture(&self, path: &str, picture: &[u8]) -> Answer {
        self.ask(&http::post(path, &[("Content-Type", "image/jpeg")], picture))
    }

    /// Posts a form.
    pub fn post_form(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
        let (content_type, body) = http::form(parts);
        self.ask(&http::post(path, &[("Content-Type", &content_type)], &body))
    }

    /// Posts JSON.
    pub fn post_json(&self, path: &str, json: &str) -> Answer {
        self.ask(&http::post(path, &[("Content-Type", "application/json")], json.as_bytes()))
    }

    /// Opens a connection that is kept.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).unwrap().with_admin(self.admin_credential())
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        // Of its maps: the kernel's own sum is kept by processor and may be off by some hundred KiB.
        let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = maps.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Its most resident memory so far, in bytes.
    pub fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One value of its metrics, by name and a part of its labels.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(token) = &self.token {
            let _ = fs::remove_file(token);
        }
    }
}
