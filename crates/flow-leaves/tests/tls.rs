//! Secure connections: to whoever shows a certificate that is believed, and to nobody else.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{convert::Infallible, sync::Arc};

use caudal_flow::{Fault, StepError, Value, value};
use caudal_flow_leaves::{Allow, Net, Parts};
use common::{made, registry_of, run_step, step};
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// A server that shows a certificate for `name`: its port, and the certificate.
async fn server(name: &str) -> (u16, String) {
    let shown = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(shown.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![shown.cert.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new("secure".to_owned())) });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (port, shown.cert.pem())
}

async fn ask(net: Net, port: u16) -> Result<Value, StepError> {
    let said = value!({"url": format!("https://localhost:{port}/"), "gives": "body"});
    let action = made(&registry_of(Parts { net, ..Parts::default() }), "http", said).unwrap();
    run_step(step(action), Value::Null, Value::Null).await
}

fn net() -> Net {
    Net::new(Allow::new(["127.0.0.0/8", "::1"]).unwrap())
}

#[tokio::test]
async fn who_is_believed_is_asked() {
    let (port, certificate) = server("localhost").await;
    assert_eq!(ask(net().believing(certificate.as_bytes()).unwrap(), port).await, Ok(value!("secure")));
    let unknown = ask(net(), port).await.unwrap_err();
    assert_eq!((unknown.fault, unknown.again), (Fault::Unreachable, false), "{unknown}");
    assert!(unknown.message.contains("no secure connection to localhost"), "{unknown}");
    let (port, certificate) = server("elsewhere").await;
    let another = ask(net().believing(certificate.as_bytes()).unwrap(), port).await.unwrap_err();
    assert_eq!((another.fault, another.again), (Fault::Unreachable, false), "{another}");
}

#[test]
fn what_is_no_certificate_is_refused() {
    for wrong in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(net().believing(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
