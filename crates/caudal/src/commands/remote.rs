//! Asking a server that runs.

use std::{
    env, fs,
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use caudal_load::Tls;
use clap::ArgMatches;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{CommandError, other, usage};
use crate::admin_token;

/// How often the bar moves.
const STEP: Duration = Duration::from_millis(100);
/// How long a server may take to let a connection in.
const CONNECT: Duration = Duration::from_secs(10);

/// How a server is asked, as the command line says.
#[derive(Clone)]
pub(super) struct Access {
    /// The admin key, where one is given.
    key: Option<String>,
    /// A file of authorities that are trusted for `https://`.
    cacert: Option<PathBuf>,
    /// Whether the server is a process of this machine, whatever its address.
    is_here: bool,
}

impl Access {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let key = matches.get_one::<String>("key").cloned().or_else(|| env::var("CAUDAL_ADMIN_KEY").ok());
        // An empty key counts as unset, as it does in the server.
        let key = key.filter(|key| !key.trim().is_empty());
        let is_here = matches.try_get_one::<u32>("pid").is_ok_and(|pid| pid.is_some());
        Self { key, cacert: matches.get_one::<PathBuf>("cacert").cloned(), is_here }
    }

    /// The credentials to try in turn: the key, or the tokens that a server of this machine may have at the port of `base`.
    fn credentials(&self, base: &Uri) -> Vec<Option<String>> {
        let here =
            base.scheme_str() == Some("http") && (self.is_here || admin_token::is_here(base.host().unwrap_or("")));
        let tokens = match &self.key {
            None if here => admin_token::find(base.port_u16().unwrap_or(80)),
            _ => Vec::new(),
        };
        match tokens.is_empty() {
            true => vec![self.key.clone()],
            false => tokens.into_iter().map(Some).collect(),
        }
    }
}

/// A question to a server.
pub(super) struct Question<'a> {
    /// `http[s]://host[:port]`.
    pub(super) base: &'a str,
    pub(super) path: &'a str,
    /// What it is asked with.
    pub(super) access: Access,
    /// How long the answer takes at least.
    pub(super) takes: Duration,
    /// How much longer it may take.
    pub(super) patience: Duration,
}

/// What a server answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Answer {
    /// What it says of an error, by the error's keys; empty where it says nothing.
    fn of_error(&self, key: &str) -> String {
        let told: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        told["error"][key].as_str().unwrap_or_default().to_owned()
    }

    /// The code of an error.
    pub(super) fn code(&self) -> String {
        self.of_error("code")
    }

    /// What the server at `base` says when it refuses, in words.
    pub(super) fn refusal(&self, base: &str) -> String {
        match self.code().is_empty() {
            false => {
                let [code, message, hint] = ["code", "message", "hint"].map(|key| self.of_error(key));
                format!("{base} answered {} {code}: {message}; {hint}", self.status)
            }
            true => format!("{base} answered {}, and not as a Caudal server does", self.status),
        }
    }
}

/// Asks, and waits with a bar.
pub(super) fn ask(question: &Question<'_>) -> Result<Answer, CommandError> {
    let base: Uri = question.base.parse().map_err(|_| usage(format!("{:?} is no URL", question.base)))?;
    let tls = match base.scheme_str() {
        Some("http") => None,
        Some("https") => {
            Some(Tls::with_authorities(question.access.cacert.as_deref()).map_err(|error| usage(error.to_string()))?)
        }
        _ => return Err(usage(format!("{:?}: the URL of a server begins with http:// or https://", question.base))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| other(format!("the async runtime could not be started: {error}")))?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(question.takes + question.patience, exchanges(&base, tls.as_ref(), question));
        let mut answer = std::pin::pin!(answer);
        let (bar, began) = (bar(question.takes), Instant::now());
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = tokio::time::sleep(STEP) => bar.set_position(began.elapsed().min(question.takes).as_millis() as u64),
            }
        };
        bar.finish_and_clear();
        let late = |_| other(format!("{} has not answered in time", question.base));
        answer.map_err(late)?.map_err(|error| other(format!("{} cannot be asked: {error}", question.base)))
    })
}

fn bar(takes: Duration) -> ProgressBar {
    if takes.is_zero() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {elapsed} of {msg}").expect("the template is a constant");
    ProgressBar::new(takes.as_millis() as u64).with_style(style).with_message(format!("{} s", takes.as_secs()))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks with each credential until one is taken.
async fn exchanges(base: &Uri, tls: Option<&Tls>, question: &Question<'_>) -> Result<Answer, Failure> {
    let mut credentials = question.access.credentials(base).into_iter().peekable();
    loop {
        let credential = credentials.next().flatten();
        let answer = exchange(base, tls, question.path, credential.as_deref()).await?;
        if answer.status != 401 || credentials.peek().is_none() {
            return Ok(answer);
        }
    }
}

async fn exchange(base: &Uri, tls: Option<&Tls>, path: &str, key: Option<&str>) -> Result<Answer, Failure> {
    let host = base.host().unwrap_or_default().trim_matches(['[', ']']);
    let usual_port = if tls.is_some() { 443 } else { 80 };
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect((host, base.port_u16().unwrap_or(usual_port))));
    let stream = stream.await.map_err(|_| "no connection in time")??;
    let mut request = Request::get(format!("{}{path}", base.path().trim_end_matches('/')))
        .header(header::HOST, base.authority().map_or("", |authority| authority.as_str()))
        .header(header::CONNECTION, "close");
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    match tls {
        Some(tls) => {
            let stream = tokio::time::timeout(CONNECT, tls.connect(host, stream)).await;
            send(stream.map_err(|_| "no TLS session in time")??, request).await
        }
        None => send(stream, request).await,
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status, body })
}

/// Where the Caudal server listens that is the process `pid`: at one address, or at one more for who administers it.
pub(super) fn addresses_of(pid: u32) -> Result<Vec<String>, CommandError> {
    let folder = Path::new("/proc").join(pid.to_string());
    let program = fs::read_link(folder.join("exe")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => other(format!("there is no process {pid}")),
        _ => other(format!("process {pid} cannot be looked at: {error}; name its address by --url instead")),
    })?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.trim_end_matches(" (deleted)") != "caudal" {
        return Err(other(format!("process {pid} is no Caudal server: it runs {}", program.display())));
    }
    let own = sockets(&folder).map_err(|error| other(format!("process {pid} cannot be looked at: {error}")))?;
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(folder.join(table)).unwrap_or_default());
    let listening = tables.iter().flat_map(|table| table.lines()).filter_map(listener);
    let found = listening.filter(|(_, socket)| own.contains(socket));
    let addresses: Vec<String> = found.map(|(address, _)| format!("http://{}", reachable(address))).collect();
    match addresses.is_empty() {
        true => Err(other(format!("process {pid} listens nowhere: is it `caudal serve`?"))),
        false => Ok(addresses),
    }
}

/// Numbers of the sockets that a process has open.
fn sockets(folder: &Path) -> io::Result<Vec<u64>> {
    let links = fs::read_dir(folder.join("fd"))?.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    let number = |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Ok(links.filter_map(number).collect())
}

/// Address and number of a socket that listens, from a line of `/proc/net/tcp`.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTENS: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, state, number) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (host, port) = address.split_once(':')?;
    // Words of four bytes, each in the machine's order.
    let word = |at: usize| u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let host = match host.len() {
        8 => IpAddr::from(word(0)?),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.chunks_exact_mut(4).zip(words).for_each(|(to, from)| to.copy_from_slice(&from));
            IpAddr::from(bytes)
        }
    };
    Some((SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?), number.parse().ok()?))
}

/// Who listens everywhere listens here too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host.to_canonical(),
    };
    SocketAddr::new(host, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_as_the_kernel_writes_them() {
        let line =
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0";
        assert_eq!(listener(line), Some(("127.0.0.1:8000".parse().unwrap(), 12345)));
        let six =
            "   1: 00000000000000000000000001000000:1F41 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 678 1";
        assert_eq!(listener(six), Some(("[::1]:8001".parse().unwrap(), 678)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None, "a connection does not listen");
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        assert_eq!(reachable("0.0.0.0:8000".parse().unwrap()), "127.0.0.1:8000".parse().unwrap());
        assert_eq!(reachable("[::]:8000".parse().unwrap()), "[::1]:8000".parse().unwrap());
        assert_eq!(reachable("10.0.0.7:80".parse().unwrap()), "10.0.0.7:80".parse().unwrap());
    }
}
