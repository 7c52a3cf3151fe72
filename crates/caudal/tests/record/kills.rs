//! The server killed without warning, under load, again and again: what was acknowledged is there, once and in order.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Server,
    http::{self, Ask, Connection, chunk, post},
};
use serde_json::Value;

use crate::{CAUDAL, JSON, NDJSON, all, either, keeps_in, lines, make, message, numbers, well, whole};

/// Clients that append to one consultation of theirs each.
const CLIENTS: usize = 4;

/// What a client was told of a consultation: the numbers of messages by their sequence.
type Told = BTreeMap<u64, u64>;

/// Appends messages from `from` on until the server is gone; tells the next number.
fn append_on(server: &Server, id: &str, from: u64, told: &mut Told, answers: &AtomicU64) -> u64 {
    let (mut next, path) = (from, format!("/consultations/{id}/events"));
    let Ok(mut connection) = Connection::open(server.address()) else { return next };
    loop {
        let body = message(next);
        next += 1;
        match connection.ask(&post(&path, &[JSON], body.as_bytes())) {
            Ok(answer) => {
                let sequence = well(&answer)["sequence"].as_u64().unwrap();
                assert_eq!(told.insert(sequence, next - 1), None, "a sequence that was given already");
                answers.fetch_add(1, Ordering::Relaxed);
            }
            // Whether that one is recorded nobody knows.
            Err(_) => return next,
        }
    }
}

/// Streams messages from 1 on until the server is gone; tells how many were acknowledged.
fn stream_on(server: &Server, id: &str) -> u64 {
    let path = format!("/consultations/{id}/events/stream");
    let headers = [NDJSON, ("Accept", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];
    let Ok(mut connection) = Connection::open(server.address()) else { return 0 };
    let Ok(mut sender) = connection.sender() else { return 0 };
    if connection.send_head(&Ask { method: "POST", path: &path, headers: &headers, body: None }).is_err() {
        return 0;
    }
    let sending = thread::spawn(move || {
        let send = |group: u64| sender.write_all(&chunk(lines(group * 100 + 1, group * 100 + 100).as_bytes()));
        (0..).map(send).find_map(Result::err)
    });
    let mut told = 0;
    if connection.read_head().is_ok() {
        while let Ok(Some(piece)) = connection.read_chunk() {
            for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                told = line["acknowledged"].as_u64().unwrap();
                assert_eq!(line["last_sequence"], told);
            }
        }
    }
    drop(connection);
    sending.join().unwrap();
    told
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let kills = either(5, 200);
    let mut random = fastrand::Rng::with_seed(7);
    let mut server = keeps_in(folder.path());
    let mut clients: Vec<(String, u64, Told)> = (0..CLIENTS).map(|_| (make(&server), 1, Told::new())).collect();
    let mut starts = Vec::new();
    for _ in 0..kills {
        let streamed = make(&server);
        let answers = AtomicU64::new(0);
        let after = Duration::from_millis(random.u64(0..either(200, 400)));
        let acknowledged = thread::scope(|scope| {
            let (server, streamed, answers) = (&server, streamed.as_str(), &answers);
            for (id, next, told) in &mut clients {
                scope.spawn(move || *next = append_on(server, id, *next, told, answers));
            }
            let streaming = scope.spawn(move || stream_on(server, streamed));
            // Some must be acknowledged, or nothing is proved.
            let end = Instant::now() + http::PATIENCE;
            while answers.load(Ordering::Relaxed) < 20 && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(after);
            server.signal("KILL");
            streaming.join().unwrap()
        });
        server.wait(http::PATIENCE);
        let began = Instant::now();
        server = keeps_in(folder.path());
        while server.get("/readyz").status != 200 {
            assert!(began.elapsed() < http::PATIENCE, "{}", server.log());
        }
        starts.push(began.elapsed());

        let events = all(&server, &streamed);
        assert!(numbers(&events).into_iter().eq(1..=events.len() as u64), "a beginning of what was sent, in order");
        assert!(events.len() as u64 >= acknowledged, "{} of {acknowledged} that were acknowledged", events.len());
        assert_eq!(whole(&server, &streamed), events.len() as u64);
        for (id, next, told) in &clients {
            let found = numbers(&all(&server, id));
            assert!(found.is_sorted_by(|one, other| one < other), "doubled, or out of order");
            assert!(found.last().is_none_or(|last| last < next), "what nobody sent");
            for (sequence, number) in told {
                assert_eq!(found.get(*sequence as usize - 1), Some(number), "event {sequence} of {id}");
            }
            assert_eq!(whole(&server, id), found.len() as u64);
        }
    }
    starts.sort_unstable();
    let acknowledged: usize = clients.iter().map(|(_, _, told)| told.len()).sum();
    println!(
        "{kills} kills, {acknowledged} single events acknowledged; ready again after {:?}, at most {:?}",
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
}

#[test]
fn a_request_that_was_cut_off_is_finished_by_asking_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = keeps_in(folder.path());
    let id = make(&server);
    let path = format!("/consultations/{id}/events");
    let ask = |server: &Server, number: u64| {
        let (key, body) = (format!("key-{number}"), message(number));
        let headers = [JSON, ("Idempotency-Key", key.as_str())];
        http::once(server.address(), &post(&path, &headers, body.as_bytes()))
    };
    let sent = Mutex::new(0);
    for _ in 0..either(3, 50) {
        thread::scope(|scope| {
            let (server, sent) = (&server, &sent);
            let killing = scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                server.signal("KILL");
            });
            let mut sent = sent.lock().unwrap();
            while ask(server, *sent + 1).map(|answer| well(&answer)).is_ok() {
                *sent += 1;
            }
            killing.join().unwrap();
        });
        server.wait(http::PATIENCE);
        server = keeps_in(folder.path());
        // The one that nobody answered, again under its key: it is there once, whether it was recorded or not.
        let mut sent = sent.lock().unwrap();
        *sent += 1;
        assert_eq!(well(&ask(&server, *sent).unwrap())["sequence"], *sent);
        assert!(numbers(&all(&server, &id)).into_iter().eq(1..=*sent));
    }
    assert_eq!(whole(&server, &id), *sent.lock().unwrap());
}

#[test]
fn a_server_that_is_asked_to_go_finishes_what_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = keeps_in(folder.path());
    let id = make(&server);
    let (path, headers) = (format!("/consultations/{id}/events/stream"), [NDJSON, ("Transfer-Encoding", "chunked")]);
    let mut connection = server.connect();
    connection.send_head(&Ask { method: "POST", path: &path, headers: &headers, body: None }).unwrap();
    connection.send_chunk(lines(1, 500).as_bytes()).unwrap();
    let end = Instant::now() + http::PATIENCE;
    while crate::count(&server, &id) < 500 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(2));
    }
    server.signal("TERM");
    while server.get("/readyz").status != 503 {
        thread::sleep(Duration::from_millis(2));
    }
    let refused = http::once(server.address(), &post(&format!("/consultations/{id}/events"), &[JSON], b"{}")).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "shutting_down"));
    connection.send_chunk(lines(501, 600).as_bytes()).unwrap();
    connection.send_chunk(b"").unwrap();
    assert_eq!(well(&connection.read().unwrap())["appended"], 600);
    assert!(server.wait(http::PATIENCE).success(), "{}", server.log());
    let server = keeps_in(folder.path());
    assert!(numbers(&all(&server, &id)).into_iter().eq(1..=600));
    whole(&server, &id);
}

#[test]
fn a_folder_has_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeps_in(folder.path());
    let id = make(&server);
    let second = || {
        let mut command = Command::new(CAUDAL);
        command.args(["serve", "--http-port", "0", "--model-repository", "no-models", "--data-dir"]).arg(folder.path());
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said: String = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        (child.wait().unwrap(), said)
    };
    let (status, said) = second();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(folder.path().to_str().unwrap()) && said.contains("one server at a time"), "{said}");
    assert_eq!(well(&crate::append(&server, &id, &message(1)))["sequence"], 1);
    // The lock goes with who held it, however it went.
    server.signal("KILL");
    drop(server);
    let server = keeps_in(folder.path());
    assert_eq!(whole(&server, &id), 1);
}

#[test]
fn a_folder_that_cannot_be_used_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    drop(File::create(&file).unwrap());
    let refuse = |data: &Path| {
        let mut command = Command::new(CAUDAL);
        command.args(["serve", "--http-port", "0", "--model-repository", "no-models", "--data-dir"]).arg(data);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refuse(&file);
    assert!(said.contains("a-file"), "{said}");
    // What lies there is no store of ours: it is left as it is.
    let data = folder.path().join("data");
    drop(keeps_in(&data));
    let store = std::fs::read_dir(&data).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite").then_some(path)
    });
    for path in store.collect::<Vec<_>>() {
        std::fs::write(&path, b"this was never a database, and it is long enough to be looked at twice".repeat(100))
            .unwrap();
        let _ = std::fs::remove_file(format!("{}-wal", path.display()));
        let said = refuse(&data);
        assert!(said.contains("data"), "{said}");
    }
}
