//! TLS to servers whose URL begins with `https://`.

use std::{fs, io, path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
        version,
    },
};

use crate::LoadError;

/// Opens TLS sessions and checks the certificates of servers.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the certificates of authorities in the PEM file `authorities`, or without one those that browsers trust.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no certificate.
    pub fn trusting(authorities: Option<&Path>) -> Result<Self, LoadError> {
        let roots = match authorities {
            Some(file) => read(file)?,
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring speaks both, because it is built with both");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Opens a session with the server `host` over `stream`.
    ///
    /// # Errors
    /// Where the host is not a name, or the server or its certificate is not what they should be.
    pub async fn open(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn read(file: &Path) -> Result<RootCertStore, LoadError> {
    let pem = fs::read(file).map_err(|source| LoadError::File { path: file.to_owned(), source })?;
    let wrong = |reason: String| LoadError::Authorities { path: file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(roots) }
}
