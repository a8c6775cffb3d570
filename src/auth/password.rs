//! Passwords as the users file holds them: reading them, checking against them, making new ones.
//!
//! The forms are Dovecot's: `{SCRAM-SHA-256}`, `{PLAIN}` or `{CLEARTEXT}`, `{CRAM-MD5}`, `{SSHA256}` and `{SSHA512}`. Anything
//! else is refused with words that say why. What is read from them is erased when dropped, as are intermediate values; the
//! key schedules the crypto library keeps on the stack for the length of a call are out of reach.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::OnceLock;

use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::decoy::process_key;
use super::md5::Hmac;
use super::mechanism::Mechanism;
use crate::encoding::{base64_decode, base64_encode, constant_time_eq};

/// PBKDF2 rounds of new hashes: the number Dovecot writes too, so that one file's entries all cost the same. RFC 7677 §4
/// asks for 4096 at least.
pub const ITERATIONS: u32 = 4096;

/// The most rounds taken from a file: seconds of work, beyond which it is a mistake.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Octets of SHA-256, the size of all of SCRAM's keys.
pub(super) const KEY: usize = 32;

/// A password in one of the stored forms.
#[non_exhaustive]
pub enum Stored {
    /// `{PLAIN}`, `{CLEARTEXT}`: the password. What the other forms hold is derived when it is read, not at each login.
    Plain(Clear),
    /// `{SCRAM-SHA-256}`: PBKDF2 and the two keys of RFC 5802 §3.
    ScramSha256(ScramKeys),
    /// `{CRAM-MD5}`: the two states of HMAC-MD5.
    CramMd5(CramKeys),
    /// `{SSHA256}`: SHA-256 of password and salt.
    Ssha256(Salted),
    /// `{SSHA512}`: SHA-512 of password and salt.
    Ssha512(Salted),
}

impl Stored {
    /// Reads `{SCHEME}value`, the scheme in any case. The error says what is wrong, without repeating the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, value) = text
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
            .ok_or("a password needs its scheme in front, for example {SCRAM-SHA-256}")?;
        let name = scheme.to_ascii_uppercase();
        let (base, suffix) = match name.split_once('.') {
            Some((base, suffix)) => (base, Some(suffix)),
            None => (name.as_str(), None),
        };
        match (base, suffix) {
            ("PLAIN" | "CLEARTEXT", None) => Clear::parse(value).map(Self::Plain),
            ("SCRAM-SHA-256", None) => ScramKeys::parse(value).map(Self::ScramSha256),
            ("CRAM-MD5", None | Some("HEX")) => CramKeys::parse(value).map(Self::CramMd5),
            ("SSHA256", _) => Salted::parse(&digest::SHA256, value, suffix).map(Self::Ssha256),
            ("SSHA512", _) => Salted::parse(&digest::SHA512, value, suffix).map(Self::Ssha512),
            _ => Err(format!(
                "the password scheme {{{}}} can't be verified here; {{SCRAM-SHA-256}}, {{SSHA256}}, {{SSHA512}}, {{CRAM-MD5}} and {{PLAIN}} can",
                scheme.escape_default()
            )),
        }
    }

    /// Whether `password` is the one, compared in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        // HMAC pads its key with zeros, so that a trailing NUL would not be seen; RFC 4616 §2 has none.
        if password.contains(&0) {
            return false;
        }
        match self {
            Self::Plain(clear) => clear.verify(password),
            Self::ScramSha256(keys) => keys.verify(password),
            Self::CramMd5(keys) => {
                constant_time_eq(&keys.0.to_states(), &Hmac::new(password).to_states())
            }
            Self::Ssha256(salted) | Self::Ssha512(salted) => salted.verify(password),
        }
    }

    /// Whether `mechanism` can be served from this form.
    pub fn supports(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Plain | Mechanism::Login => true,
            Mechanism::CramMd5 => self.cram().is_some(),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                matches!(self, Self::Plain(_) | Self::ScramSha256(_))
            }
        }
    }

    /// PBKDF2 rounds one [`Stored::verify`] takes; 0 for the forms without.
    pub fn iterations(&self) -> u32 {
        match self {
            Self::ScramSha256(keys) => keys.iterations.get(),
            _ => 0,
        }
    }

    /// Rounds that [`Self::scram`] takes: SCRAM's keys of a password in the clear are derived.
    pub(super) fn derivation(&self) -> u32 {
        match self {
            Self::Plain(_) => ITERATIONS,
            _ => 0,
        }
    }

    pub(super) fn scram(&self) -> Option<&ScramKeys> {
        match self {
            Self::Plain(clear) => Some(clear.scram()),
            Self::ScramSha256(keys) => Some(keys),
            _ => None,
        }
    }

    pub(super) fn cram(&self) -> Option<&Hmac> {
        match self {
            Self::Plain(clear) => Some(&clear.cram),
            Self::CramMd5(keys) => Some(&keys.0),
            _ => None,
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "{PLAIN}",
            Self::ScramSha256(_) => "{SCRAM-SHA-256}",
            Self::CramMd5(_) => "{CRAM-MD5}",
            Self::Ssha256(_) => "{SSHA256}",
            Self::Ssha512(_) => "{SSHA512}",
        })
    }
}

/// A password as it is, and what SCRAM and CRAM-MD5 need of it.
pub struct Clear {
    secret: Zeroizing<Vec<u8>>,
    /// Derived when SCRAM asks for them: reading a file of thousands must not take minutes.
    scram: OnceLock<ScramKeys>,
    cram: Hmac,
}

impl Clear {
    fn parse(value: &str) -> Result<Self, String> {
        if value.is_empty() {
            return Err("the password is empty".to_owned());
        }
        let secret = value.as_bytes();
        Ok(Self {
            secret: Zeroizing::new(secret.to_vec()),
            scram: OnceLock::new(),
            cram: Hmac::new(secret),
        })
    }

    fn scram(&self) -> &ScramKeys {
        self.scram.get_or_init(|| {
            // The salt only has to stay the same while this process runs; being keyed it tells nothing of the password.
            let salt = process_key().salt(b"password", &self.secret);
            ScramKeys::derive(&self.secret, salt.to_vec(), rounds(ITERATIONS))
        })
    }

    /// Digests are compared, so that the time does not tell the length.
    fn verify(&self, password: &[u8]) -> bool {
        let [ours, theirs] =
            [&self.secret, password].map(|secret| digest::digest(&digest::SHA256, secret));
        constant_time_eq(ours.as_ref(), theirs.as_ref())
    }
}

/// What a SCRAM server keeps of a password (RFC 5802 §3).
#[derive(Clone)]
pub struct ScramKeys {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Zeroizing<[u8; KEY]>,
    pub(super) server_key: Zeroizing<[u8; KEY]>,
}

impl ScramKeys {
    /// `iterations,salt,StoredKey,ServerKey`, the last three in base64.
    fn parse(value: &str) -> Result<Self, String> {
        let parts: Vec<&str> = value.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts.as_slice() else {
            return Err("{SCRAM-SHA-256} is iterations,salt,StoredKey,ServerKey".to_owned());
        };
        let digits = iterations.bytes().all(|octet| octet.is_ascii_digit());
        let iterations = iterations
            .parse()
            .ok()
            .filter(|_| digits)
            .and_then(NonZeroU32::new);
        let iterations = iterations
            .filter(|n| (ITERATIONS..=MAX_ITERATIONS).contains(&n.get()))
            .ok_or_else(|| {
                format!("{{SCRAM-SHA-256}} takes {ITERATIONS} to {MAX_ITERATIONS} iterations")
            })?;
        let salt = base64_decode(salt.as_bytes()).filter(|salt| !salt.is_empty());
        Ok(Self {
            iterations,
            salt: salt.ok_or("the salt of {SCRAM-SHA-256} is not base64")?,
            stored_key: key("StoredKey", stored_key)?,
            server_key: key("ServerKey", server_key)?,
        })
    }

    /// RFC 5802 §3: SaltedPassword and what follows from it.
    pub(super) fn derive(password: &[u8], salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let salted = stretch(password, &salt, iterations);
        let client_key = Zeroizing::new(hmac_sha256(salted.as_slice(), b"Client Key"));
        Self {
            iterations,
            salt,
            stored_key: Zeroizing::new(sha256(client_key.as_slice())),
            server_key: Zeroizing::new(hmac_sha256(salted.as_slice(), b"Server Key")),
        }
    }

    fn verify(&self, password: &[u8]) -> bool {
        let theirs = Self::derive(password, self.salt.clone(), self.iterations);
        constant_time_eq(self.stored_key.as_slice(), theirs.stored_key.as_slice())
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let salt = base64_encode(&self.salt);
        let [stored, server] =
            [&self.stored_key, &self.server_key].map(|key| base64_encode(key.as_slice()));
        write!(
            f,
            "{{SCRAM-SHA-256}}{},{salt},{stored},{server}",
            self.iterations
        )
    }
}

/// What a CRAM-MD5 server keeps of a password.
pub struct CramKeys(Hmac);

impl CramKeys {
    /// 64 hexadecimal digits: the outer state and the inner one.
    fn parse(value: &str) -> Result<Self, String> {
        let states = unhex(value).map(Zeroizing::new);
        let (outer, inner) = states
            .as_ref()
            .and_then(|states| states.split_first_chunk::<16>())
            .and_then(|(outer, inner)| Some((outer, <&[u8; 16]>::try_from(inner).ok()?)))
            .ok_or("{CRAM-MD5} is 64 hexadecimal digits")?;
        Ok(Self(Hmac::from_states(outer, inner)))
    }
}

/// A digest of password and salt.
pub struct Salted {
    algorithm: &'static digest::Algorithm,
    digest: Zeroizing<Vec<u8>>,
    salt: Vec<u8>,
}

impl Salted {
    /// Digest and salt one behind the other, in base64 unless the scheme's suffix says otherwise.
    fn parse(
        algorithm: &'static digest::Algorithm,
        value: &str,
        suffix: Option<&str>,
    ) -> Result<Self, String> {
        let octets = match suffix {
            None | Some("B64" | "BASE64") => {
                base64_decode(value.as_bytes()).ok_or("the password hash is not base64")?
            }
            Some("HEX") => unhex(value).ok_or("the password hash is not hexadecimal")?,
            Some(_) => return Err("a password scheme ends in .HEX, .B64 or neither".to_owned()),
        };
        let octets = Zeroizing::new(octets);
        match octets.split_at_checked(algorithm.output_len()) {
            Some((digest, salt)) if !salt.is_empty() => Ok(Self {
                algorithm,
                digest: Zeroizing::new(digest.to_vec()),
                salt: salt.to_vec(),
            }),
            _ => Err("the password hash is too short for a digest and its salt".to_owned()),
        }
    }

    fn verify(&self, password: &[u8]) -> bool {
        let mut context = digest::Context::new(self.algorithm);
        context.update(password);
        context.update(&self.salt);
        constant_time_eq(context.finish().as_ref(), &self.digest)
    }
}

/// Hashes a password for the users file: `{SCRAM-SHA-256}` with [`ITERATIONS`] rounds. The salt has to be random.
pub fn hash_password(password: &[u8], salt: [u8; 16]) -> String {
    ScramKeys::derive(password, salt.to_vec(), rounds(ITERATIONS)).to_string()
}

/// A round count; 0 counts as 1.
pub(super) fn rounds(iterations: u32) -> NonZeroU32 {
    NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
}

pub(super) fn stretch(
    password: &[u8],
    salt: &[u8],
    iterations: NonZeroU32,
) -> Zeroizing<[u8; KEY]> {
    let mut out = Zeroizing::new([0; KEY]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        salt,
        password,
        out.as_mut_slice(),
    );
    out
}

pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; KEY] {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

pub(super) fn sha256(message: &[u8]) -> [u8; KEY] {
    array(digest::digest(&digest::SHA256, message).as_ref())
}

fn array(octets: &[u8]) -> [u8; KEY] {
    let mut out = [0; KEY];
    for (to, from) in out.iter_mut().zip(octets) {
        *to = *from;
    }
    out
}

/// One of SCRAM's keys in base64.
fn key(name: &str, text: &str) -> Result<Zeroizing<[u8; KEY]>, String> {
    let octets = base64_decode(text.as_bytes()).map(Zeroizing::new);
    let key = octets.and_then(|octets| <[u8; KEY]>::try_from(octets.as_slice()).ok());
    let key =
        key.ok_or_else(|| format!("the {name} of {{SCRAM-SHA-256}} is not 32 octets in base64"))?;
    Ok(Zeroizing::new(key))
}

/// Hexadecimal digits of either case, two an octet.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |octet: u8| {
        char::from(octet)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Each is the password `test`, made by other programs than this.
    const FORMS: [&str; 8] = [
        "{PLAIN}test",
        "{cleartext}test",
        "{SCRAM-SHA-256}4096,LfNGSFqiFykEZ1xDAYlnKQ==,HACNf9CII7cMz3XjRy/Oh3Ae2LHApoDyNw74d3YtFws=,AQH0j7Hf8J12g8eNBadvzlNB2am3PxgNwFCFd3RxEaw=",
        "{CRAM-MD5}e02d374fde0dc75a17a557039a3a5338c7743304777dccd376f332bee68d2cf6",
        "{SSHA256}Tt8H7clbL9y8ryN4/RLYrCEsKqbjJsWcPmKb4wOdZDJzYWx0",
        "{SSHA256.hex}4edf07edc95b2fdcbcaf2378fd12d8ac212c2aa6e326c59c3e629be3039d643273616c74",
        "{SSHA256.b64}Tt8H7clbL9y8ryN4/RLYrCEsKqbjJsWcPmKb4wOdZDJzYWx0",
        "{SSHA512}bIOOk04/7vrmz6U68RN11JVPhcb17YiMAs14BqcWltHLRJ8r546ebqMBqVyB8orYdm865YL5vqrDPH3Ct7qRh3NhbHQ=",
    ];

    #[test]
    fn every_form_knows_its_password() {
        for form in FORMS {
            let stored = Stored::parse(form).unwrap();
            assert!(stored.verify(b"test"), "{form}");
            for wrong in [&b"Test"[..], b"", b"test ", b"tes", b"test\0"] {
                assert!(!stored.verify(wrong), "{form}");
            }
        }
    }

    #[test]
    fn which_form_serves_which_mechanism() {
        use Mechanism::{CramMd5, Login, Plain, ScramSha256, ScramSha256Plus};
        for (form, want) in FORMS.into_iter().zip([
            &[ScramSha256Plus, ScramSha256, CramMd5, Plain, Login][..],
            &[ScramSha256Plus, ScramSha256, CramMd5, Plain, Login],
            &[ScramSha256Plus, ScramSha256, Plain, Login],
            &[CramMd5, Plain, Login],
            &[Plain, Login],
        ]) {
            let stored = Stored::parse(form).unwrap();
            let all = super::super::MECHANISMS.iter().copied();
            assert_eq!(
                all.filter(|mechanism| stored.supports(*mechanism))
                    .collect::<Vec<_>>(),
                want,
                "{form}"
            );
        }
    }

    #[test]
    fn refused_with_a_reason_that_keeps_the_secret() {
        let scram = |text: &str| {
            format!("{{SCRAM-SHA-256}}{text},HACNf9CII7cMz3XjRy/Oh3Ae2LHApoDyNw74d3YtFws=,aGlkZGVu")
        };
        for (form, want) in [
            ("hidden", "scheme in front"),
            ("{PLAIN", "scheme in front"),
            ("{PLAIN}", "empty"),
            (
                "{SHA512-CRYPT}$6$hidden",
                "{SHA512-CRYPT} can't be verified",
            ),
            ("{MD5}hidden", "can't be verified"),
            ("{SSHA256}hidden", "not base64"),
            ("{SSHA256}aGlkZGVu", "too short"),
            ("{SSHA256.hex}hidden", "not hexadecimal"),
            ("{SSHA256.oct}hidden", ".HEX, .B64"),
            ("{CRAM-MD5}abcd", "64 hexadecimal"),
            ("{SCRAM-SHA-256}hidden", "iterations,salt"),
            (&scram("4095,aGlkZGVu"), "4096 to"),
            (&scram("+4096,aGlkZGVu"), "4096 to"),
            (&scram("4096,hidden"), "salt"),
            (&scram("4096,aGlkZGVu"), "ServerKey"),
        ] {
            let reason = Stored::parse(form).unwrap_err();
            assert!(
                reason.contains(want) && !reason.contains("hidden"),
                "{form}: {reason}"
            );
        }
    }

    #[test]
    fn a_new_hash_is_one_that_can_be_read() {
        let hash = hash_password(b"secret", [7; 16]);
        assert!(
            hash.starts_with("{SCRAM-SHA-256}4096,BwcHBwcHBwcHBwcHBwcHBw==,"),
            "{hash}"
        );
        assert!(Stored::parse(&hash).unwrap().verify(b"secret"));
    }

    #[test]
    fn nothing_secret_in_debug_output() {
        assert_eq!(
            format!("{:?}", Stored::parse("{PLAIN}hidden").unwrap()),
            "{PLAIN}"
        );
    }
}
