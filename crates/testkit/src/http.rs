//! A small HTTP/1.1 client for tests: it shows every byte, and can do what a decent client would not.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The header `name`, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that is kept open.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    /// Sent to admin routes by requests that bring no credential of their own.
    admin: Option<String>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Its method.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Headers beside Host and Content-Length.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; Content-Length is sent if there is one.
    pub body: Option<&'a [u8]>,
}

/// A question.
pub fn get(path: &str) -> Ask<'_> {
    Ask { method: "GET", path, headers: &[], body: None }
}

/// A request with a body.
pub fn post<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Ask<'a> {
    Ask { method: "POST", path, headers, body: Some(body) }
}

/// How long a client of the suite waits for a server.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Connection {
    /// Opens a connection to `address`.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), admin: None })
    }

    /// The same connection, of a client that knows the server's admin credential.
    #[must_use]
    pub fn with_admin(mut self, credential: Option<String>) -> Self {
        self.admin = credential;
        self
    }

    /// The socket itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream().write_all(bytes)
    }

    /// Sends `ask` and reads the answer.
    pub fn ask(&mut self, ask: &Ask<'_>) -> io::Result<Answer> {
        self.send_head(ask)?;
        // A server that refuses early may close before it has read everything: its answer counts, not our pipe.
        let sent = self.send(ask.body.unwrap_or_default());
        self.read().map_err(|error| sent.err().unwrap_or(error))
    }

    /// Sends the head of `ask` and nothing more.
    pub fn send_head(&mut self, ask: &Ask<'_>) -> io::Result<()> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", ask.method, ask.path);
        for (name, value) in ask.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let brings_own =
            ask.headers.iter().any(|(name, _)| ["authorization", "x-admin-key"].contains(&&*name.to_lowercase()));
        if let Some(credential) = self.admin.as_ref().filter(|_| !brings_own && is_admin(ask.path)) {
            head.push_str(&format!("Authorization: Bearer {credential}\r\n"));
        }
        if let Some(body) = ask.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Reads an answer.
    pub fn read(&mut self) -> io::Result<Answer> {
        let mut answer = self.read_head()?;
        if answer.header("transfer-encoding") == "chunked" {
            while let Some(chunk) = self.read_chunk()? {
                answer.body.extend(chunk);
            }
            return Ok(answer);
        }
        let length: usize = answer.header("content-length").parse().unwrap_or(0);
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Reads status and headers of an answer, and leaves its body.
    pub fn read_head(&mut self) -> io::Result<Answer> {
        let status_line = self.line()?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {status_line:?}"));
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        match status {
            100 => self.read_head(),
            _ => Ok(Answer { status, headers, body: Vec::new() }),
        }
    }

    /// Reads the next piece of a body that comes in chunks; `None` at its end.
    pub fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("no size of a chunk: {size:?}")))?;
        let mut chunk = vec![0; size];
        self.reader.read_exact(&mut chunk)?;
        self.line()?;
        Ok((size > 0).then_some(chunk))
    }

    /// A second handle on the same socket, to send while somebody else reads.
    pub fn sender(&mut self) -> io::Result<TcpStream> {
        self.stream().try_clone()
    }

    /// Sends `bytes` as one chunk of a body; none ends it.
    pub fn send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(&chunk(bytes))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// True for routes that need the admin credential.
fn is_admin(path: &str) -> bool {
    ["/admin/", "/debug/", "/v2/repository/", "/api/audit/"].iter().any(|group| path.starts_with(group))
}

/// `bytes` as one chunk of a body; none ends it.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Sends one request on a connection of its own.
pub fn once(address: SocketAddr, ask: &Ask<'_>) -> io::Result<Answer> {
    Connection::open(address)?.ask(ask)
}

/// A form with files, as a browser sends it: its Content-Type and its body.
pub fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "caudal-test-boundary";
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let filename = filename.map_or_else(String::new, |filename| format!("; filename=\"{filename}\""));
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n\r\n").bytes(),
        );
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

/// The body of an inference request with one input `x` of float32 rows of four values.
pub fn tensor_request(rows: &[[f32; 4]], parameters: &str) -> String {
    let data: Vec<f32> = rows.concat();
    format!(
        "{{\"parameters\":{{{parameters}}},\"inputs\":[{{\"name\":\"x\",\"shape\":[{},4],\"datatype\":\"FP32\",\"data\":{data:?}}}]}}",
        rows.len()
    )
}
