//! Whom to believe: the authorities that browsers believe, as they were when this was built, and those of one's own.

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
    version,
};

/// No certificate of an authority.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("these are no certificates in PEM: {0}")]
pub struct BadRoots(Box<str>);

static USUAL: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| believing(usual()));

/// Settings of all connections that believe the usual authorities alone.
pub(super) fn config() -> Arc<ClientConfig> {
    Arc::clone(&USUAL)
}

/// The same, believing those in `pem` as well.
pub(super) fn config_with(pem: &[u8]) -> Result<Arc<ClientConfig>, BadRoots> {
    let wrong = |why: String| BadRoots(why.into());
    let (mut roots, before) = (usual(), usual().len());
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.len() == before { Err(wrong("there is none".to_owned())) } else { Ok(believing(roots)) }
}

fn usual() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

fn believing(roots: RootCertStore) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("ring speaks both, because it is built with both");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
