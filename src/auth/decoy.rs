//! The account that does not exist: it costs as much to check as one that does, and shows a client the same things, each
//! time the same.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::OnceLock;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::md5::Hmac;
use super::password::{ITERATIONS, KEY, ScramKeys, hmac_sha256, rounds};

/// What stands in for the accounts that do not exist.
///
/// It burns as many rounds as a real check takes, and shows in SCRAM a salt that depends on nothing but a key and the user's name.
/// For real salts that outlive a restart the key should do so too: see [`Decoy::new`].
#[derive(Clone)]
pub struct Decoy {
    key: Key,
    iterations: NonZeroU32,
}

impl Decoy {
    /// A decoy with salts derived from `key`, any secret text, and the rounds most accounts have (1 at least).
    pub fn new(key: &[u8], iterations: u32) -> Self {
        Self {
            key: Key::new(key),
            iterations: rounds(iterations),
        }
    }

    /// Takes the time a check takes, less the rounds already `spent`.
    pub fn burn(&self, password: &[u8], spent: u32) {
        if let Some(left) = NonZeroU32::new(self.iterations.get().saturating_sub(spent)) {
            std::hint::black_box(ScramKeys::derive(password, vec![0; 16], left));
        }
    }

    /// Keys no password fits. Spellings that may mean one account get one salt: case and domain do not count.
    pub(super) fn scram(&self, name: &str) -> ScramKeys {
        let local = name.rsplit_once('@').map_or(name, |(local, _)| local);
        let local = local.to_ascii_lowercase();
        ScramKeys {
            iterations: self.iterations,
            salt: self.key.salt(b"user", local.as_bytes()).to_vec(),
            stored_key: Zeroizing::new(self.key.derive(b"stored", local.as_bytes())),
            server_key: Zeroizing::new(self.key.derive(b"server", local.as_bytes())),
        }
    }

    /// States no password fits.
    pub(super) fn cram(&self, name: &str) -> Hmac {
        Hmac::new(&self.key.derive(b"cram", name.as_bytes()))
    }
}

impl Default for Decoy {
    /// Keyed for this process, with [`ITERATIONS`] rounds.
    fn default() -> Self {
        Self {
            key: process_key().clone(),
            iterations: rounds(ITERATIONS),
        }
    }
}

impl fmt::Debug for Decoy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoy({} rounds)", self.iterations)
    }
}

/// A key salts are derived from.
#[derive(Clone)]
pub(super) struct Key(Zeroizing<[u8; KEY]>);

impl Key {
    fn new(seed: &[u8]) -> Self {
        Self(Zeroizing::new(hmac_sha256(seed, b"mailslot decoy")))
    }

    /// `purpose` keeps the uses of one key apart.
    fn derive(&self, purpose: &[u8], name: &[u8]) -> [u8; KEY] {
        let message = Zeroizing::new([purpose, b"\0", name].concat());
        hmac_sha256(self.0.as_slice(), &message)
    }

    pub(super) fn salt(&self, purpose: &[u8], name: &[u8]) -> [u8; 16] {
        let mut salt = [0; 16];
        for (to, from) in salt.iter_mut().zip(self.derive(purpose, name)) {
            *to = from;
        }
        salt
    }
}

/// The key of this process: the one random thing here, made once. Nothing a client sees in a transcript depends on it
/// but the salts of users that do not exist, or whose password is stored in the clear.
pub(super) fn process_key() -> &'static Key {
    static KEY_OF_PROCESS: OnceLock<Key> = OnceLock::new();
    KEY_OF_PROCESS.get_or_init(|| {
        let mut seed = Zeroizing::new([0; KEY]);
        // Without a source of randomness the salts would be guessable, and no connection could be encrypted either.
        if SystemRandom::new().fill(seed.as_mut_slice()).is_err() {
            log::warn!("no randomness for the salts of unknown users");
        }
        Key::new(seed.as_slice())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R177, A9.
    #[test]
    fn decoys_stay_the_same() {
        let decoy = Decoy::new(b"key", 5000);
        assert_eq!(
            decoy.scram("alice").salt,
            decoy.scram("Alice@example.org").salt
        );
        assert_ne!(decoy.scram("alice").salt, decoy.scram("bob").salt);
        assert_ne!(
            decoy.scram("alice").salt,
            Decoy::new(b"other", 5000).scram("alice").salt
        );
        assert_eq!(
            Decoy::default().scram("alice").salt,
            Decoy::default().scram("alice").salt
        );
        assert_eq!(decoy.scram("alice").iterations.get(), 5000);
    }
}
