//! A server of ours, as a demonstration or a benchmark needs it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::say::{self, Result, root};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A server that is killed when it is dropped.
pub(crate) struct Server {
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
    /// Starts `program` on `port` of this machine, or with 0 on a free one, its command changed by `more`.
    pub(crate) fn start(program: &Path, port: u16, more: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // Whoever answers there now is not the server that is about to start.
        let free = TcpListener::bind(address).and_then(|socket| socket.local_addr());
        let address =
            free.map_err(|error| format!("port {port} cannot be used ({error}); choose another with --port N"))?;
        let mut command = Command::new(program);
        command.current_dir(root()).args(["serve", "--host", "127.0.0.1", "--http-port", &address.port().to_string()]);
        let child = more(&mut command).spawn();
        let child = child.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        Ok(Self { child, address })
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result {
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

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn post(&self, path: &str, picture: &[u8]) -> Result<Vec<u8>> {
        self.request(
            &format!("POST {path} HTTP/1.1\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n", picture.len()),
            picture,
        )
    }

    /// A connection on which `head` and `body` were sent.
    pub(crate) fn send(&self, head: &str, body: &[u8]) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(format!("{head}Host: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
        stream.write_all(body)?;
        Ok(stream)
    }

    fn request(&self, head: &str, body: &[u8]) -> Result<Vec<u8>> {
        let talk = || -> std::io::Result<Vec<u8>> {
            let mut answer = Vec::new();
            self.send(head, body)?.read_to_end(&mut answer)?;
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
    pub(crate) fn wait(&mut self) -> Result {
        self.child.wait().map(drop).map_err(|error| error.to_string())
    }

    /// Lets it end in its own way.
    pub(crate) fn stop(&mut self) -> Result {
        say::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the server did not end well ({status})")) }
    }
}
