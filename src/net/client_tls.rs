//! TLS as a client: the roots, and the start of a handshake. A verified connection has a certificate that names the
//! host or its address and is signed by one of the roots; an unverified one only keeps out passive listeners. Sessions
//! are resumed, separately for each kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error};
use rustls::{RootCertStore, SignatureScheme};

use crate::read;

/// Where systems keep their root certificates: Debian and Alpine, Fedora, openSUSE, the BSDs and macOS, FreeBSD's
/// package.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// The root certificates.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, String> {
        let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let octets = read::whole(path).map_err(|e| fault(&e))?;
        let found = CertificateDer::pem_slice_iter(&octets).filter_map(Result::ok);
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(found);
        if added == 0 {
            return Err(fault(&"it has no certificate"));
        }
        Ok(Self(Arc::new(store)))
    }

    /// Loads the system's roots.
    ///
    /// # Errors
    /// The system has none; the message says where they are expected and what to do.
    pub fn system() -> Result<Self, String> {
        Self::first_of(BUNDLES.iter().map(PathBuf::from))
    }

    fn first_of(paths: impl Iterator<Item = PathBuf>) -> Result<Self, String> {
        let mut looked = Vec::new();
        for path in paths {
            match Self::load(&path) {
                Ok(roots) => return Ok(roots),
                Err(_) => looked.push(path.display().to_string()),
            }
        }
        Err(format!(
            "no root certificates to verify next hops with; mount the host's bundle at one of {}, or use --tls-ca FILE",
            looked.join(", ")
        ))
    }
}

/// The configurations for outgoing TLS.
#[derive(Clone)]
pub struct ClientTls {
    /// `None` without roots.
    verified: Option<Arc<ClientConfig>>,
    unverified: Arc<ClientConfig>,
}

impl ClientTls {
    /// Builds the configurations. Without roots nothing can be verified.
    ///
    /// # Errors
    /// An error of the library.
    pub fn new(roots: Option<Roots>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())
        };
        let verified = match roots {
            Some(Roots(store)) => {
                let config = builder()?
                    .with_root_certificates(store)
                    .with_no_client_auth();
                Some(Arc::new(config))
            }
            None => None,
        };
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let unverified = builder()?
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_no_client_auth();
        Ok(Self {
            verified,
            unverified: Arc::new(unverified),
        })
    }

    /// The client's side of a handshake with `host`, a name (in ASCII) or an address.
    ///
    /// # Errors
    /// The host cannot be named in TLS, or there are no roots to verify it with.
    pub fn connection(&self, host: &str, verify: bool) -> Result<Connection, String> {
        let config = match (&self.verified, verify) {
            (Some(config), true) => config,
            (None, true) => return Err("no root certificates to verify the server with".to_owned()),
            (_, false) => &self.unverified,
        };
        let name = ServerName::try_from(host.to_owned());
        let name = match name {
            Err(_) if !verify => ServerName::try_from("localhost".to_owned()),
            other => other,
        };
        let name =
            name.map_err(|_| format!("'{host}' is not a name that a certificate can have"))?;
        let connection = ClientConnection::new(Arc::clone(config), name);
        connection.map(Into::into).map_err(|e| e.to_string())
    }
}

/// Accepts any certificate, so a handshake does not prove the server's identity, only that it has the certificate's
/// key.
#[derive(Debug)]
pub struct Anybody(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn roots_of_files_and_of_the_system() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        assert!(Roots::load(&dir.join("cert.pem")).is_ok());
        let wrong = Roots::load(&dir.join("key.pem")).unwrap_err();
        assert!(wrong.ends_with("key.pem: it has no certificate"), "{wrong}");
        let missing = Roots::first_of([PathBuf::from("/nonexistent/ca.pem")].into_iter());
        let said = missing.unwrap_err();
        assert!(
            said.contains("/nonexistent/ca.pem") && said.contains("--tls-ca"),
            "{said}"
        );
    }

    #[test]
    fn nothing_is_verified_without_roots() {
        let tls = ClientTls::new(None).unwrap();
        assert!(tls.connection("mx.test", true).is_err());
        for host in ["mx.test", "127.0.0.1", "::1", "odd name", ""] {
            assert!(tls.connection(host, false).is_ok(), "{host}");
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let tls = ClientTls::new(Roots::load(&dir.join("cert.pem")).ok()).unwrap();
        assert!(tls.connection("mx.test", true).is_ok());
        assert!(tls.connection("odd name", true).is_err());
    }
}
