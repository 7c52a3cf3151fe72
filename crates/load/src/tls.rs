//! TLS for servers with an https URL.

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

/// Opens TLS sessions and verifies server certificates.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the authorities in the PEM file `authorities`, or the public authorities of webpki-roots without one.
    ///
    /// # Errors
    /// If the file cannot be read or has no certificate.
    pub fn with_authorities(authorities: Option<&Path>) -> Result<Self, LoadError> {
        let roots = match authorities {
            Some(file) => read_authorities(file)?,
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring is built with TLS 1.2 and 1.3");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Opens a session with the server `host` over `stream`.
    ///
    /// # Errors
    /// If the host name, the server's TLS or its certificate is invalid.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

fn read_authorities(file: &Path) -> Result<RootCertStore, LoadError> {
    let pem = fs::read(file).map_err(|source| LoadError::File { path: file.to_owned(), source })?;
    let wrong = |reason: String| LoadError::Authorities { path: file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(roots) }
}
