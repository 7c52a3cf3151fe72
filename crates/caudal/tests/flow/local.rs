//! A server on this machine that answers what a test says, and remembers what it was asked. It speaks chat completions
//! as the providers of language models do, in one piece and as a stream.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use serde_json::{Value, json};

/// What was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// Who asks, as the header Authorization has it.
    pub(crate) key: String,
    pub(crate) body: Value,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: String,
    parts: Vec<String>,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: "Content-Type: application/json\r\n".to_owned(), parts: vec![body.to_string()] }
    }

    pub(crate) fn with(mut self, header: &str) -> Self {
        self.headers.push_str(&format!("{header}\r\n"));
        self
    }
}

/// A server that goes when it is dropped.
pub(crate) struct Local {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    over: Arc<AtomicBool>,
}

impl Local {
    /// A server that answers by what it is asked, and by how often it was asked that path before.
    pub(crate) fn start(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = Self { address: listener.local_addr().unwrap(), seen: Arc::default(), over: Arc::default() };
        let (seen, over, answer) = (Arc::clone(&local.seen), Arc::clone(&local.over), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !over.load(Relaxed)) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                // Who breaks off in the middle is gone.
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        local
    }

    /// A server that says yes to everything.
    pub(crate) fn counting() -> Self {
        Self::start(|_, _| Reply::json(200, &json!({"ok": true})))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The paths that were asked for, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, all: &Mutex<Vec<Seen>>, answer: &impl Fn(&Seen, usize) -> Reply) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let seen = read(&mut reader)?;
    let before = {
        let mut all = all.lock().unwrap();
        let before = all.iter().filter(|other| other.path == seen.path).count();
        all.push(seen.clone());
        before
    };
    write(stream, &answer(&seen, before))
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut seen = Seen { path: line.split(' ').nth(1)?.to_owned(), ..Seen::default() };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match &*name.to_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => seen.key = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.body = serde_json::from_slice(&body).unwrap_or_default();
    Some(seen)
}

/// Writes an answer in chunks of its parts, and ends the connection.
fn write(mut stream: TcpStream, reply: &Reply) -> Option<()> {
    let Reply { status, headers, parts } = reply;
    let head = format!("HTTP/1.1 {status} Local\r\n{headers}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    for part in parts {
        stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).ok()?;
    }
    stream.write_all(b"0\r\n\r\n").ok()
}

fn usage() -> Value {
    json!({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})
}

/// A model's answer: 100 tokens were read and 10 written. It comes as it was asked for, in one piece or in parts.
pub(crate) fn completion(seen: &Seen, words: &str) -> Reply {
    if seen.body["stream"] != true {
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"});
        return Reply::json(200, &json!({"object": "chat.completion", "choices": [choice], "usage": usage()}));
    }
    let delta = |words: &str| json!({"choices": [{"index": 0, "delta": {"content": words}}]});
    let (first, rest) = words.split_at(words.len() / 2);
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let spent = json!({"choices": [], "usage": usage()});
    let events = [delta(first), delta(rest), end, spent].map(|event| format!("data: {event}\n\n"));
    let parts = events.into_iter().chain(["data: [DONE]\n\n".to_owned()]).collect();
    Reply { status: 200, headers: "Content-Type: text/event-stream\r\n".to_owned(), parts }
}
