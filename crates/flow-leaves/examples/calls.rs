//! How many calls a second `http` makes of a server on this machine, plain and secure, one after the other and 16 at once:
//! `cargo run -p caudal-flow-leaves --example calls`.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use caudal_flow::{Definition, Engine, Options, Registry, RunOptions, Step, Steps, Undefined, Value, value};
use caudal_flow_leaves::{Allow, Net, Parts, register};
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// How long each is measured.
const TIME: Duration = Duration::from_secs(3);
/// What is answered: as much as a small JSON document has.
const BYTES: usize = 1_000;

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

async fn serve(stream: TcpStream, secure: Option<TlsAcceptor>) {
    CONNECTIONS.fetch_add(1, Relaxed);
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new("x".repeat(BYTES))) });
    let _ = match secure {
        None => http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await,
        Some(acceptor) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
        }
    };
}

/// A server on threads of its own: its port.
fn server(secure: Option<TlsAcceptor>) -> Result<u16, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, secure.clone()));
            }
        });
    });
    Ok(port)
}

fn step(net: Net, url: &str) -> Result<Definition, Box<dyn Error>> {
    let mut registry = Registry::default();
    register(&mut registry, Parts { net, ..Parts::default() });
    let leaf = registry.get("http").ok_or("there is http")?;
    let action = (leaf.make)(&value!({"url": url, "gives": "body"}), Undefined::Strict)?;
    Ok(Definition::new("calls", Steps::new([Step::act("asked", action)])))
}

/// Calls a second, so many at once.
async fn measure(definition: &Definition, at_once: usize) -> Result<f64, Box<dyn Error>> {
    let engine = Engine::new(Options::default());
    let began = Instant::now();
    let tasks = (0..at_once).map(|_| {
        let (engine, definition) = (engine.clone(), definition.clone());
        tokio::spawn(async move {
            let mut calls = 0u32;
            while began.elapsed() < TIME {
                let ran = engine.run(&definition, Value::Null, RunOptions::default()).await;
                if let Err(error) = ran.output() {
                    return Err(error.to_string());
                }
                calls += 1;
            }
            Ok(calls)
        })
    });
    let mut calls = 0;
    for task in tasks.collect::<Vec<_>>() {
        calls += task.await??;
    }
    Ok(f64::from(calls) / began.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn Error>> {
    let shown = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(shown.signing_key.serialize_der())?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let config = builder.with_single_cert(vec![shown.cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let net = Net::new(Allow::new(["127.0.0.0/8", "::1"])?).believing(shown.cert.pem().as_bytes())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for (scheme, secure) in [("http", None), ("https", Some(acceptor))] {
        let host = if secure.is_some() { "localhost" } else { "127.0.0.1" };
        let port = server(secure)?;
        let definition = step(net.clone(), &format!("{scheme}://{host}:{port}/"))?;
        for at_once in [1, 16] {
            CONNECTIONS.store(0, Relaxed);
            let rate = runtime.block_on(measure(&definition, at_once))?;
            println!(
                "{scheme:>5}, {at_once:>2} at once: {rate:>8.0} calls/s, {} connections",
                CONNECTIONS.load(Relaxed)
            );
        }
    }
    Ok(())
}
