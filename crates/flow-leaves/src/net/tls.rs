//! Whom to believe: the certificates that browsers believe, as they were when this was built.

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, version};

static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("ring speaks both, because it is built with both");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
});

/// The settings of all connections.
pub(super) fn config() -> Arc<ClientConfig> {
    Arc::clone(&CONFIG)
}
