//! Passwords as the users file holds them: parsing, checking and making them.
//!
//! The forms are Dovecot's: `{SCRAM-SHA-256}`, `{PLAIN}` or `{CLEARTEXT}`, `{CRAM-MD5}`, `{SSHA256}` and `{SSHA512}`,
//! and the crypt(3) forms that `crypt` supports. Anything else is refused with a reason. Secrets and intermediate
//! values are erased when dropped, except the key schedules that ring keeps on the stack during a call.

use std::fmt;

use ring::digest;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::crypt::{Family, ShaCrypt};
use super::decoy::{Cost, Decoy, Look};
use super::keys::ScramKeys;
use super::md5::Hmac;
use super::mechanism::{Mechanism, Secret};
use crate::encoding::{base64_decode, hex_decode};

pub use super::keys::ITERATIONS;

/// A password in one of the stored forms.
#[non_exhaustive]
pub enum Stored {
    /// `{PLAIN}`, `{CLEARTEXT}`: the password. What the mechanisms need is derived once, when the file is read.
    Plain(Clear),
    /// `{SCRAM-SHA-256}`: PBKDF2 and the two keys of RFC 5802 §3.
    ScramSha256(ScramKeys),
    /// `{CRAM-MD5}`: the two states of HMAC-MD5.
    CramMd5(CramKeys),
    /// `{SSHA256}`: SHA-256 of password and salt.
    Ssha256(Salted),
    /// `{SSHA512}`: SHA-512 of password and salt.
    Ssha512(Salted),
    /// `{SHA256-CRYPT}`, `{SHA512-CRYPT}` and `{CRYPT}` with `$5$` or `$6$`.
    Crypt(ShaCrypt),
}

impl Stored {
    /// Parses `{SCHEME}value`, the scheme in any case.
    ///
    /// # Errors
    /// What is wrong, without the value.
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
            ("SHA256-CRYPT", None) => crypt(value, Some(Family::Sha256)).map(Self::Crypt),
            ("SHA512-CRYPT", None) => crypt(value, Some(Family::Sha512)).map(Self::Crypt),
            ("CRYPT", None) => crypt(value, None).map(Self::Crypt),
            ("SSHA256", _) => Salted::parse(&digest::SHA256, value, suffix).map(Self::Ssha256),
            ("SSHA512", _) => Salted::parse(&digest::SHA512, value, suffix).map(Self::Ssha512),
            _ => Err(format!(
                "the password scheme {{{}}} can't be verified here; {{SCRAM-SHA-256}}, {{SHA512-CRYPT}}, {{SHA256-CRYPT}}, {{SSHA256}}, {{SSHA512}}, {{CRAM-MD5}} and {{PLAIN}} can",
                scheme.escape_default()
            )),
        }
    }

    /// Checks a password in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        // HMAC pads its key with zeros, so a trailing NUL would make no difference; RFC 4616 §2 forbids NUL.
        if password.contains(&0) {
            return false;
        }
        match self {
            Self::Plain(clear) => clear.verify(password),
            Self::ScramSha256(keys) => keys.verify(password),
            Self::CramMd5(keys) => {
                let theirs = Hmac::new(password).to_states();
                keys.0.to_states().ct_eq(theirs.as_slice()).into()
            }
            Self::Ssha256(salted) | Self::Ssha512(salted) => salted.verify(password),
            Self::Crypt(hash) => hash.verify(password),
        }
    }

    /// True if this form supports `mechanism`.
    pub fn supports(&self, mechanism: Mechanism) -> bool {
        match mechanism.secret() {
            Secret::Password => true,
            Secret::Token => false,
            Secret::Cram => self.cram().is_some(),
            Secret::Scram => matches!(self, Self::Plain(_) | Self::ScramSha256(_)),
        }
    }

    /// The cost of one [`Stored::verify`].
    pub fn cost(&self) -> Cost {
        match self {
            Self::ScramSha256(keys) => Cost::of_pbkdf2(keys.iterations),
            Self::Crypt(hash) => match hash.family() {
                Family::Sha256 => Cost {
                    sha256: hash.rounds(),
                    ..Cost::default()
                },
                Family::Sha512 => Cost {
                    sha512: hash.rounds(),
                    ..Cost::default()
                },
            },
            _ => Cost::default(),
        }
    }

    /// Its own SCRAM look, iterations and salt length, if it has one.
    pub fn look(&self) -> Option<Look> {
        match self {
            Self::ScramSha256(keys) => Some((keys.iterations, keys.salt.len())),
            _ => None,
        }
    }

    /// The SCRAM keys, and the cost of deriving them; those of a plaintext password depend on the `name` for decoys.
    pub(super) fn scram(&self, name: &str, decoy: &Decoy) -> Option<(ScramKeys, Cost)> {
        match self {
            Self::Plain(clear) => {
                let keys = decoy.scram_of(name, &clear.secret);
                let cost = Cost::of_pbkdf2(keys.iterations);
                Some((keys, cost))
            }
            Self::ScramSha256(keys) => Some((keys.clone(), Cost::default())),
            _ => None,
        }
    }

    /// The keyed HMAC-MD5, if this form has it.
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
            Self::Crypt(hash) => hash.family().prefix(),
        })
    }
}

/// A plaintext password, and its CRAM-MD5 state.
pub struct Clear {
    secret: Zeroizing<Vec<u8>>,
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
            cram: Hmac::new(secret),
        })
    }

    /// Compares digests, so that the time does not reveal the length.
    fn verify(&self, password: &[u8]) -> bool {
        let [ours, theirs] =
            [&self.secret, password].map(|secret| digest::digest(&digest::SHA256, secret));
        ours.as_ref().ct_eq(theirs.as_ref()).into()
    }
}

/// The CRAM-MD5 states of a password.
pub struct CramKeys(Hmac);

impl CramKeys {
    /// 64 hexadecimal digits: the outer state and the inner one.
    fn parse(value: &str) -> Result<Self, String> {
        let states = hex_decode(value.as_bytes()).map(Zeroizing::new);
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
    /// Parses digest and salt, concatenated, in base64 unless the scheme has another suffix.
    fn parse(
        algorithm: &'static digest::Algorithm,
        value: &str,
        suffix: Option<&str>,
    ) -> Result<Self, String> {
        let octets = match suffix {
            None | Some("B64" | "BASE64") => {
                base64_decode(value.as_bytes()).ok_or("the password hash is not base64")?
            }
            Some("HEX") => {
                hex_decode(value.as_bytes()).ok_or("the password hash is not hexadecimal")?
            }
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
        context.finish().as_ref().ct_eq(&self.digest).into()
    }
}

/// Hashes a password for the users file: `{SCRAM-SHA-256}` with [`ITERATIONS`] rounds. The salt must be random.
pub fn hash_password(password: &[u8], salt: [u8; 16]) -> String {
    ScramKeys::derive(password, salt.to_vec(), super::keys::rounds(ITERATIONS)).to_string()
}

/// Parses a crypt(3) hash, of the family that the scheme names, if any.
fn crypt(value: &str, family: Option<Family>) -> Result<ShaCrypt, String> {
    let hash = ShaCrypt::parse(value)?;
    match family {
        Some(family) if family != hash.family() => Err(format!(
            "a hash of this scheme begins with {}",
            family.prefix()
        )),
        _ => Ok(hash),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Each is the password `test`, hashed by another program.
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

    /// mailslot-users(5): SASLprep would take these for the same.
    #[test]
    fn passwords_are_compared_as_they_are() {
        for (hashed, typed) in [("\u{e9}", "e\u{301}"), ("\u{aa}", "a"), ("I\u{ad}X", "IX")] {
            let stored = Stored::parse(&format!("{{PLAIN}}{hashed}")).unwrap();
            assert!(stored.verify(hashed.as_bytes()) && !stored.verify(typed.as_bytes()));
        }
    }

    #[test]
    fn mechanisms_of_each_form() {
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
            ("{SHA512-CRYPT}$6$hidden", "no salt"),
            (
                "{SHA512-CRYPT}$5$hidden$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
                "$6$",
            ),
            ("{CRYPT}$2y$hidden", "$5$ or $6$"),
            ("{BLF-CRYPT}$2y$hidden", "can't be verified"),
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
