//! Certificates and keys: PEM files to a TLS configuration. Errors name the file. The library has no versions below TLS
//! 1.2 (RFC 8996) and no weak suites.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use zeroize::Zeroizing;

use crate::read;

/// DER tags (X.690 §8.1.2): an explicit `[0]`, and UTCTime.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;

/// A certificate chain and its key.
pub struct Certificate {
    path: PathBuf,
    key_path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// Reads a PEM chain and a PEM key (PKCS#8, PKCS#1 or SEC1) and checks that they match.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn load(path: &Path, key_path: &Path) -> Result<Self, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{}: not PEM: {e}", path.display()))?;
        if chain.is_empty() {
            return Err(format!(
                "{}: it has no certificate; expected PEM",
                path.display()
            ));
        }
        let key = read_key(key_path)?;
        let identity = Self {
            path: path.to_owned(),
            key_path: key_path.to_owned(),
            chain,
            key,
        };
        identity.config()?;
        Ok(identity)
    }

    /// A configuration for one listener, with ticket keys of its own: a session cannot be resumed at another listener,
    /// whose rules may differ (A2).
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let key_fault = |e: &rustls::Error| format!("{}: {e}", self.key_path.display());
        let chain_fault = |e: &rustls::Error| format!("{}: {e}", self.path.display());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| chain_fault(&e))?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => format!(
                    "{}: the key does not match the certificate in {}",
                    self.key_path.display(),
                    self.path.display()
                ),
                rustls::Error::InvalidCertificate(_) if self.is_old() => format!(
                    "{}: a certificate of X.509 version 1 cannot be served; make one of version 3",
                    self.path.display()
                ),
                rustls::Error::InvalidCertificate(_) => chain_fault(&e),
                _ => key_fault(&e),
            })?;
        // A client that uses ALPN must offer one of these (A16).
        config.alpn_protocols = vec![b"smtp".to_vec(), b"lmtp".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new().map_err(|e| chain_fault(&e))?;
        Ok(Arc::new(config))
    }

    /// The first and last moment of the first certificate's validity, as `YYYYMMDDhhmmss` in UTC; `None` if they cannot
    /// be found.
    pub fn validity(&self) -> Option<[String; 2]> {
        validity(self.chain.first()?)
    }

    /// True for a certificate without extensions, as `openssl x509 -req` alone makes them.
    fn is_old(&self) -> bool {
        let first = self.chain.first().and_then(|first| fields(first));
        first.is_some_and(|(version, _)| !version)
    }
}

/// Reads the first private key of a PEM file. Encrypted keys are refused: there is nobody to ask for a passphrase.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let octets = Zeroizing::new(read(path)?);
    let has = |words: &str| {
        let mut places = octets.windows(words.len());
        places.any(|place| place == words.as_bytes())
    };
    PrivateKeyDer::from_pem_slice(&octets).map_err(|e| {
        let path = path.display();
        if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
            return format!(
                "{path}: the private key is encrypted; decrypt it, with openssl pkey -in {path} for example"
            );
        }
        match e {
            pem::Error::NoItemsFound if has("-----BEGIN ") => {
                format!("{path}: it has no private key, only other PEM sections")
            }
            pem::Error::NoItemsFound => format!("{path}: it has no private key; expected PEM"),
            other => format!("{path}: not PEM: {other}"),
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read::whole(path).map_err(|e| format!("{}: cannot read: {e}", path.display()))
}

/// RFC 5280 §4.1: Certificate, TBSCertificate, and an optional `[0]` version. Returns true if there is a version, and
/// the fields after it.
fn fields(certificate: &[u8]) -> Option<(bool, &[u8])> {
    let (_, certificate, _) = element(certificate)?;
    let (_, fields, _) = element(certificate)?;
    let (tag, _, after) = element(fields)?;
    Some(match tag {
        VERSION => (true, after),
        _ => (false, fields),
    })
}

/// The two times of the validity, which follows serialNumber, signature and issuer.
fn validity(certificate: &[u8]) -> Option<[String; 2]> {
    let (_, mut fields) = fields(certificate)?;
    for _ in ["serialNumber", "signature", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, second) = element(validity)?;
    Some([time(validity)?, time(second)?])
}

fn time(der: &[u8]) -> Option<String> {
    let (tag, time, _) = element(der)?;
    let text = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    // RFC 5280 §4.1.2.5.1: two digits of the year, from 1950 to 2049.
    Some(match tag {
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => text.to_owned(),
    })
}

/// Tag, content and rest of a DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if octets.len() > 4 {
            return None;
        }
        let length = octets.iter().fold(0, |sum, &o| sum << 8 | usize::from(o));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;

    /// Editors of another system write a byte order mark, and their line ends.
    #[test]
    fn pem_as_it_is_found() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let scratch = Scratch::new();
        let marked = |name: &str| {
            let text = std::fs::read_to_string(dir.join(name)).unwrap();
            scratch.file(name, ["\u{feff}", &text.replace('\n', "\r\n")].concat())
        };
        let found = Certificate::load(&marked("cert.pem"), &marked("key.pem")).unwrap();
        let plain = Certificate::load(&dir.join("cert.pem"), &dir.join("key.pem")).unwrap();
        assert_eq!(found.chain, plain.chain);
    }

    /// F40: both forms of time; later fields do not matter.
    #[test]
    fn the_end_of_validity() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let identity = Certificate::load(&dir.join("cert.pem"), &dir.join("key.pem")).unwrap();
        let [begin, end] = identity.validity().unwrap();
        assert!(begin.len() == 14 && begin < end && end.starts_with("2126"));
        assert!(!identity.is_old());
        let certificate = |year: &[u8]| {
            let time = [&[UTC_TIME, 13], year, b"0102030405Z"].concat();
            let begin = b"\x18\x0f20200102030405Z";
            let validity = [&[0x30, 32], begin.as_slice(), &time].concat();
            let fields = [&[2, 1, 1, 0x30, 0, 0x30, 0], validity.as_slice()].concat();
            let inner = [
                &[0x30, u8::try_from(fields.len()).unwrap()],
                fields.as_slice(),
            ]
            .concat();
            [
                &[0x30, u8::try_from(inner.len()).unwrap()],
                inner.as_slice(),
            ]
            .concat()
        };
        for (year, expected) in [(b"49", "20490102030405"), (b"50", "19500102030405")] {
            let [begin, end] = validity(&certificate(year)).unwrap();
            assert_eq!((begin.as_str(), end.as_str()), ("20200102030405", expected));
        }
        assert!(fields(&certificate(b"49")).is_some_and(|(version, _)| !version));
        let whole = certificate(b"49");
        for cut in 0..whole.len() {
            assert_eq!(validity(whole.get(..cut).unwrap()), None, "{cut}");
        }
    }
}
