//! The keys that SCRAM stores for a password (RFC 5802 §3), and their derivation.

use std::fmt;
use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::encoding::{base64_decode, base64_encode, number};

/// PBKDF2 rounds of new hashes: the same number as Dovecot, so that all entries of a file cost the same. RFC 7677 §4
/// asks for at least 4096.
pub const ITERATIONS: u32 = 4096;

/// Maximum rounds accepted in a file: more would take seconds.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Octets of SHA-256, the size of all of SCRAM's keys.
pub(super) const KEY: usize = 32;
/// Octets of the salt of a new hash.
pub(super) const SALT: usize = 16;

/// The SCRAM keys of a password (RFC 5802 §3).
#[derive(Clone)]
pub struct ScramKeys {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Zeroizing<[u8; KEY]>,
    pub(super) server_key: Zeroizing<[u8; KEY]>,
}

impl ScramKeys {
    /// `iterations,salt,StoredKey,ServerKey`, the last three in base64.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let parts: Vec<&str> = value.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts.as_slice() else {
            return Err("{SCRAM-SHA-256} is iterations,salt,StoredKey,ServerKey".to_owned());
        };
        let iterations = number(iterations)
            .and_then(NonZeroU32::new)
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

    /// RFC 5802 §3: derives SaltedPassword and the keys.
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

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let theirs = Self::derive(password, self.salt.clone(), self.iterations);
        self.stored_key.ct_eq(&*theirs.stored_key).into()
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

/// A round count; 0 becomes 1.
pub(super) fn rounds(iterations: u32) -> NonZeroU32 {
    NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
}

/// PBKDF2 with HMAC-SHA-256 (RFC 8018 §5.2).
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

/// The octets of a digest.
pub(super) fn array(octets: &[u8]) -> [u8; KEY] {
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
