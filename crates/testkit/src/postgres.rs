//! A PostgreSQL of a test's own.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Runs a server for as long as it or the test lives. Whatever ends the test, nothing of it is left.
const WATCHED: &str = r#"
    exec 3<&0; folder=$1; shift
    "$@" </dev/null & server=$!
    (
        read -r word <&3 && exit
        kill -QUIT $server; while kill -0 $server 2>/dev/null; do sleep 0.1; done; rm -rf "$folder"
    ) >/dev/null 2>&1 &
    wait $server
"#;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of its own on a Unix socket in a folder of its own, with flushes on. It ends with the value.
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// Whose it is, and of which group, if not ours.
    user: Option<(String, String)>,
    server: Mutex<Option<Child>>,
    names: AtomicU32,
}

impl Postgres {
    /// Starts one. None where PostgreSQL's programs are not installed (Debian: `postgresql`).
    pub fn start() -> Option<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("caudal-pg").tempdir().unwrap();
        let root = output(Command::new("id").arg("-u")).trim() == "0";
        // PostgreSQL does not run as root.
        let number = |which| output(Command::new("id").args([which, "nobody"])).trim().to_owned();
        let user = root.then(|| (number("-u"), number("-g")));
        if let Some((user, group)) = &user {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            output(Command::new("chown").arg(format!("{user}:{group}")).arg(folder.path()));
        }
        let server = Self { folder, programs, user, server: Mutex::default(), names: AtomicU32::new(0) };
        let data = server.folder.path().join("data");
        let mut initdb = server.program("initdb");
        initdb.args(["--username=test", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata"]);
        output(initdb.arg(data));
        server.go();
        Some(server)
    }

    /// Where it is, for a client.
    pub fn url(&self) -> String {
        format!("host={} port=5432 user=test dbname=postgres", self.folder.path().display())
    }

    /// A name that nobody has been given before.
    pub fn name(&self) -> String {
        format!("s{}", self.names.fetch_add(1, Relaxed))
    }

    /// Has it run one statement or more, and gives back what `psql` says.
    pub fn sql(&self, sql: &str) -> String {
        let mut psql = Command::new("psql");
        output(psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql]))
    }

    /// Has a program of PostgreSQL's do something as its user.
    pub fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match &self.user {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", group, "--clear-groups"]).arg(program);
                command
            }
        };
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        command
    }

    /// Starts it again, and waits until it answers.
    pub fn go(&self) {
        let folder = self.folder.path();
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let server = self.program("postgres");
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED, "watched"]).arg(folder).arg(server.get_program()).args(server.get_args());
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
        command.args(["-c", "listen_addresses=", "-c", "port=5432", "-c", "max_connections=200"]);
        command.args(["-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB"]).current_dir(folder);
        let child = command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let end = Instant::now() + PATIENCE;
        loop {
            let mut psql = Command::new("psql");
            psql.args(["-qAtX", "-d", &self.url(), "-c", "select 1"]).stdout(Stdio::null()).stderr(Stdio::null());
            if psql.status().unwrap().success() {
                return;
            }
            let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not start: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it and all its processes, as a machine that fails would.
    pub fn kill(&self) {
        self.end("KILL");
    }

    /// Has it end all connections and shut down in order.
    pub fn stop(&self) {
        self.end("INT");
    }

    fn end(&self, signal: &str) {
        let Some(mut child) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let file = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        let pid = file.lines().next().unwrap();
        output(Command::new("kill").args(["-s", signal, pid]));
        let _ = child.stdin.take().map(|mut watched| watched.write_all(b"keep\n"));
        child.wait().unwrap();
        self.wait_for_the_rest();
    }

    /// Those it had started notice that it is gone, and go too; only then can it start again.
    fn wait_for_the_rest(&self) {
        let end = Instant::now() + PATIENCE;
        let data = self.folder.path().join("data");
        while Instant::now() < end && uses(&data) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = fs::remove_file(data.join("postmaster.pid"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

/// Whether any process works in `folder`.
fn uses(folder: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|place| place == folder))
}

/// Where the newest PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| version(path))?;
    let programs = newest.join("bin");
    (programs.join("initdb").is_file() && programs.join("postgres").is_file()).then_some(programs)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
