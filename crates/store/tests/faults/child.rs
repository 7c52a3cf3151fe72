//! A process that appends until it is killed, and writes down what was acknowledged.

use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use caudal_store::{Append, Clock, Digest, Key, NewRecord, NewStream, Range, Store, StoreError, postgres, sqlite};
use uuid::Uuid;

use crate::contract::{chain, id, record, run};

pub(crate) const STREAMS: [&str; 3] = ["a", "b", "c"];
/// Tasks of a process that append.
const TASKS: usize = 6;
/// Pages of the log after which it is written back: soon, so that faults hit that too.
const LOG_PAGES: u32 = 60;

/// Where a process keeps its records.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Folder(String),
    Server { url: String, schema: String },
}

impl Place {
    pub(crate) fn open(&self, clock: Clock) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Self::Folder(folder) => Arc::new(sqlite::Sqlite::open(sqlite::Options {
                clock,
                log_pages: LOG_PAGES,
                ..sqlite::Options::within(Path::new(folder))
            })?),
            Self::Server { url, schema } => Arc::new(postgres::Postgres::open(postgres::Options {
                clock,
                schema: schema.clone(),
                pool_size: 4,
                ..postgres::Options::at(url)
            })?),
        })
    }

    fn told(command: &mut Command, place: &Self) {
        match place {
            Self::Folder(folder) => command.env("CHILD_FOLDER", folder),
            Self::Server { url, schema } => command.env("CHILD_URL", url).env("CHILD_SCHEMA", schema),
        };
    }

    fn heard() -> Self {
        let var = |name| std::env::var(name).expect(name);
        match std::env::var("CHILD_FOLDER") {
            Ok(folder) => Self::Folder(folder),
            Err(_) => Self::Server { url: var("CHILD_URL"), schema: var("CHILD_SCHEMA") },
        }
    }
}

/// Runs this test binary again, to do `what`.
pub(crate) fn command(what: &str, place: &Place, acks: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["child::child", "--exact", "--nocapture"]).env("CHILD", what).env("CHILD_ACKS", acks);
    Place::told(&mut command, place);
    command.stdout(Stdio::null());
    command
}

pub(crate) fn start(what: &str, place: &Place, acks: &Path) -> Child {
    command(what, place, acks).spawn().expect("this program")
}

/// Not a test of its own: what the others start.
#[test]
fn child() {
    let Ok(what) = std::env::var("CHILD") else { return };
    let acks = Acks::to(Path::new(&std::env::var("CHILD_ACKS").expect("CHILD_ACKS")));
    let place = Place::heard();
    match what.as_str() {
        "forever" => run(append(place.open(Clock::system()).expect("a store"), acks, None, Wrong::Stops)),
        // Opened and closed a few times, while the clock jumps.
        "some" | "shaky" => {
            let wrong = if what == "shaky" { Wrong::IsBorne } else { Wrong::Stops };
            for _ in 0..3 {
                let jumping = Clock::new(|| fastrand::i64(-1_000_000..1_000_000_000));
                // A flush can fail while it opens, too.
                let opened = (0..100).find_map(|_| place.open(jumping.clone()).ok());
                let store = opened.expect("a store");
                run(append(store, acks.clone(), Some(25), wrong));
            }
        }
        "writers" => run(writers(place.open(Clock::system()).expect("a store"))),
        "faults" => crate::room::faults(&place),
        what => panic!("{what}?"),
    }
}

/// What was acknowledged, written down at once.
#[derive(Clone)]
struct Acks(Arc<Mutex<File>>);

impl Acks {
    fn to(file: &Path) -> Self {
        Self(Arc::new(Mutex::new(File::options().create(true).append(true).open(file).expect("a file for acks"))))
    }

    fn add(&self, stream: &str, first: u64, ids: &[Uuid]) {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let line = format!("{stream} {first} {}\n", ids.join(" "));
        self.0.lock().expect("no panic").write_all(line.as_bytes()).expect("written down");
    }
}

/// What a process does about an append that fails.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Stops,
    IsBorne,
}

/// Appends from many tasks to several streams, each task to one: so many times each, or until it is killed.
async fn append(store: Arc<dyn Store>, acks: Acks, times: Option<u64>, wrong: Wrong) {
    for name in STREAMS {
        for _ in 0..100 {
            match store.create(NewStream { id: id(name), meta: (&b"{}"[..]).into() }).await {
                Ok(_) | Err(StoreError::Exists(_)) => break,
                Err(error) => assert!(wrong == Wrong::IsBorne, "{error}"),
            }
        }
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            tokio::spawn(append_to(Arc::clone(&store), STREAMS[task % STREAMS.len()], acks.clone(), times, wrong))
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

async fn append_to(store: Arc<dyn Store>, name: &str, acks: Acks, times: Option<u64>, wrong: Wrong) {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let writer = Uuid::now_v7();
    let mut done = 0;
    while times.is_none_or(|times| done < times) {
        done += 1;
        let records: Vec<NewRecord> = (0..fastrand::usize(1..4))
            .map(|_| {
                let mut body = format!("{writer} {:08} ", NUMBERS.fetch_add(1, Relaxed)).into_bytes();
                body.resize(body.len() + fastrand::usize(..3_000), b'x');
                record("one", body)
            })
            .collect();
        let ids: Vec<Uuid> = records.iter().map(|record| record.id).collect();
        let key = fastrand::bool().then(|| Key { name: ids[0].to_string().into(), request: [1; 32] });
        match store.append(Append { stream: id(name), expected: None, key, records }).await {
            Ok(appended) => acks.add(name, appended.first, &ids),
            Err(error) => {
                assert!(wrong == Wrong::IsBorne, "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Sixteen writers, for as long as `CHILD_SECONDS` says. None may fail.
async fn writers(store: Arc<dyn Store>) {
    let seconds: u64 = std::env::var("CHILD_SECONDS").expect("CHILD_SECONDS").parse().expect("a number");
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let (mut done, mut longest) = (0u64, Duration::ZERO);
                while std::time::Instant::now() < end {
                    let start = std::time::Instant::now();
                    let records = vec![record("one", vec![b'x'; 500])];
                    let append = Append { stream: id(STREAMS[writer % 3]), expected: None, key: None, records };
                    store.append(append).await.expect("appended");
                    longest = longest.max(start.elapsed());
                    done += 1;
                }
                (done, longest)
            })
        })
        .collect();
    let (mut done, mut longest) = (0, Duration::ZERO);
    for writer in writers {
        let (some, slowest) = writer.await.expect("a writer");
        done += some;
        longest = longest.max(slowest);
    }
    // Not by `println`, which a test keeps for itself.
    std::fs::write(std::env::var("CHILD_ACKS").expect("CHILD_ACKS"), format!("{done} {}", longest.as_millis()))
        .expect("told");
}

/// What has been checked of the streams so far.
#[derive(Default)]
pub(crate) struct Seen {
    streams: HashMap<&'static str, (u64, Digest)>,
    places: HashMap<Uuid, (&'static str, u64)>,
    numbers: HashMap<(String, &'static str), u64>,
}

impl Seen {
    /// Checks all that has come since the last time: no gap, no break in the chain, no record twice, each writer's records
    /// in its order, and all that was `acknowledged` where it was said to be. Gives back how many records came.
    pub(crate) fn check(&mut self, store: &dyn Store, acknowledged: &str) -> usize {
        run(async {
            let mut count = 0;
            for name in STREAMS {
                let Some(mut stream) = store.stream(&id(name)).await.expect("asked") else { continue };
                let (mut after, mut link) = *self.streams.get(name).unwrap_or(&(0, stream.origin()));
                loop {
                    let some = store.read(&id(name), Range::after(after, 500)).await.expect("records");
                    if some.is_empty() && after <= stream.head.sequence {
                        break;
                    }
                    if some.is_empty() {
                        // PostgreSQL may still commit what a killed process had sent it: the head is older than the records.
                        stream = store.stream(&id(name)).await.expect("asked").expect("it was there");
                        assert!(stream.head.sequence >= after, "{name} ends before its records do");
                    }
                    link = chain(link, &some);
                    for record in &some {
                        after += 1;
                        assert_eq!(record.sequence, after, "{name} has a gap");
                        assert_eq!(self.places.insert(record.id, (name, after)), None, "{} is there twice", record.id);
                        self.in_order(name, &record.body);
                    }
                    count += some.len();
                }
                assert_eq!(
                    (stream.head.sequence, stream.head.chain),
                    (after, link),
                    "{name} does not end with its end"
                );
                self.streams.insert(name, (after, link));
            }
            for line in acknowledged.lines() {
                let mut words = line.split(' ');
                let name = words.next().expect("a stream");
                let first: u64 = words.next().expect("a place").parse().expect("a number");
                for (place, uuid) in (first..).zip(words) {
                    let found = self.places.get(&uuid.parse().expect("an id"));
                    assert_eq!(
                        found.copied(),
                        Some((STREAMS[STREAMS.iter().position(|s| *s == name).expect("a stream")], place)),
                        "what was acknowledged is lost or elsewhere: {line}"
                    );
                }
            }
            count
        })
    }

    fn in_order(&mut self, name: &'static str, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let Some((writer, number)) = text.split_once(' ') else { return };
        let Some(number) = number.split(' ').next().and_then(|number| number.parse().ok()) else { return };
        let last = self.numbers.insert((writer.to_owned(), name), number);
        assert!(last.is_none_or(|last| last < number), "{name}: {writer} wrote {number} after {last:?}");
    }
}
