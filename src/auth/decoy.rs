//! Decoys for accounts that do not exist: checking one costs as much as checking a real account, and it shows a client
//! the same values every time.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use ring::digest;
use zeroize::Zeroizing;

use super::crypt::{self, Family};
use super::keys::{ITERATIONS, KEY, SALT, ScramKeys, array, hmac_sha256, rounds, stretch};
use super::md5::Hmac;

/// Rounds to derive the key from the passwords of a file, so that decoys are useless for guessing passwords.
const KEY_ROUNDS: u32 = 65_536;
/// Maximum different account looks that are counted.
const MAX_LOOKS: usize = 64;

/// The work of one password check, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Rounds of PBKDF2 with HMAC-SHA-256.
    pub pbkdf2: u32,
    /// Rounds of SHA-crypt with SHA-256.
    pub sha256: u32,
    /// Rounds of SHA-crypt with SHA-512.
    pub sha512: u32,
}

impl Cost {
    /// Rounds of PBKDF2 and nothing else.
    pub(super) fn of_pbkdf2(rounds: NonZeroU32) -> Self {
        Self {
            pbkdf2: rounds.get(),
            ..Self::default()
        }
    }

    /// The larger value of each kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            pbkdf2: self.pbkdf2.max(other.pbkdf2),
            sha256: self.sha256.max(other.sha256),
            sha512: self.sha512.max(other.sha512),
        }
    }

    /// The remainder after `spent`.
    fn less(self, spent: Self) -> Self {
        Self {
            pbkdf2: self.pbkdf2.saturating_sub(spent.pbkdf2),
            sha256: self.sha256.saturating_sub(spent.sha256),
            sha512: self.sha512.saturating_sub(spent.sha512),
        }
    }
}

/// What SCRAM reveals about an account: iterations and salt length in octets.
pub type Look = (NonZeroU32, usize);

/// The substitute for accounts that do not exist, made from those that do.
#[derive(Clone)]
pub struct Decoy(Arc<Inner>);

struct Inner {
    seed: [u8; KEY],
    key: OnceLock<SaltKey>,
    /// The looks of accounts, and how many accounts have each.
    looks: Vec<(Look, u64)>,
    cost: Cost,
}

/// Builds a [`Decoy`] from accounts.
pub struct DecoyMaker {
    secrets: digest::Context,
    /// Sorted, so that the order of accounts makes no difference.
    looks: Vec<(Look, u64)>,
    cost: Cost,
}

impl DecoyMaker {
    /// A builder without accounts.
    pub fn new() -> Self {
        Self {
            secrets: digest::Context::new(&digest::SHA256),
            looks: Vec::new(),
            cost: Cost::of_pbkdf2(rounds(ITERATIONS)),
        }
    }

    /// Adds an account: its password as stored, the cost of checking it, and its look in SCRAM.
    pub fn add(&mut self, secret: &str, cost: Cost, look: Option<Look>) {
        self.secrets.update(secret.as_bytes());
        self.secrets.update(b"\n");
        self.cost = self.cost.max(cost);
        let Some(look) = look else { return };
        match self.looks.binary_search_by_key(&look, |(known, _)| *known) {
            Ok(place) => {
                let known = self.looks.get_mut(place);
                known.into_iter().for_each(|(_, count)| *count += 1);
            }
            Err(place) if self.looks.len() < MAX_LOOKS => self.looks.insert(place, (look, 1)),
            Err(_) => {}
        }
    }

    /// Builds the decoy. The same file always gives the same one.
    pub fn finish(self) -> Decoy {
        let mut looks = self.looks;
        if looks.is_empty() {
            looks.push(((rounds(ITERATIONS), SALT), 1));
        }
        Decoy(Arc::new(Inner {
            seed: array(self.secrets.finish().as_ref()),
            key: OnceLock::new(),
            looks,
            cost: self.cost,
        }))
    }
}

impl Default for DecoyMaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoy {
    /// Spends the time of the most expensive check, less what was already `spent`.
    pub fn burn(&self, password: &[u8], spent: Cost) {
        let left = self.0.cost.less(spent);
        if let Some(left) = NonZeroU32::new(left.pbkdf2) {
            std::hint::black_box(stretch(password, &[0; SALT], left));
        }
        crypt::burn(Family::Sha256, password, left.sha256);
        crypt::burn(Family::Sha512, password, left.sha512);
    }

    /// Keys that no password matches.
    pub(super) fn scram(&self, name: &str) -> ScramKeys {
        let (iterations, salt) = self.appearance(name.as_bytes());
        let key = self.key();
        ScramKeys {
            iterations,
            salt,
            stored_key: Zeroizing::new(key.derive(b"stored", name.as_bytes())),
            server_key: Zeroizing::new(key.derive(b"server", name.as_bytes())),
        }
    }

    /// The SCRAM keys of a plaintext password, with the iterations and salt that the name would show if the account did
    /// not exist.
    pub(super) fn scram_of(&self, name: &str, password: &[u8]) -> ScramKeys {
        let (iterations, salt) = self.appearance(name.as_bytes());
        ScramKeys::derive(password, salt, iterations)
    }

    /// The iterations of some real account, and a salt derived from the name.
    fn appearance(&self, name: &[u8]) -> (NonZeroU32, Vec<u8>) {
        let key = self.key();
        let total: u64 = self.0.looks.iter().map(|(_, count)| count).sum();
        let chosen = key.derive(b"look", name);
        let number = chosen.first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
        let mut number = number % total.max(1);
        let look = self.0.looks.iter().find(|(_, count)| {
            let here = number < *count;
            number = number.saturating_sub(*count);
            here
        });
        let (iterations, length) =
            look.map_or_else(|| (rounds(ITERATIONS), SALT), |(look, _)| *look);
        let mut salt = Vec::with_capacity(length);
        let mut block = 0_u8;
        while salt.len() < length {
            salt.extend(key.derive(&[b's', block], name));
            block = block.wrapping_add(1);
        }
        salt.truncate(length);
        (iterations, salt)
    }

    /// A number below `count`, always the same one for a name; `None` if there is none.
    pub fn choose(&self, name: &str, count: usize) -> Option<usize> {
        let chosen = self.key().derive(b"like", name.as_bytes());
        let number = chosen.first_chunk().map_or(0, |n| u32::from_be_bytes(*n));
        usize::try_from(number).ok()?.checked_rem(count)
    }

    /// An HMAC key that no password matches.
    pub(super) fn cram(&self, name: &str) -> Hmac {
        Hmac::new(&self.key().derive(b"cram", name.as_bytes()))
    }

    fn key(&self) -> &SaltKey {
        let make = || SaltKey(stretch(&self.0.seed, b"mailslot decoy", rounds(KEY_ROUNDS)));
        self.0.key.get_or_init(make)
    }
}

impl Default for Decoy {
    fn default() -> Self {
        DecoyMaker::new().finish()
    }
}

impl fmt::Debug for Decoy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoy({:?})", self.0.cost)
    }
}

/// The key from which salts are derived.
struct SaltKey(Zeroizing<[u8; KEY]>);

impl SaltKey {
    /// A pseudo-random value for `purpose` and a name.
    fn derive(&self, purpose: &[u8], name: &[u8]) -> [u8; KEY] {
        let message = Zeroizing::new([purpose, b"\0", name].concat());
        hmac_sha256(self.0.as_slice(), &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoy(secrets: &[&str], looks: &[(u32, usize)]) -> Decoy {
        let mut maker = DecoyMaker::new();
        let looks = looks.iter().map(|&(n, salt)| Some((rounds(n), salt)));
        for (secret, look) in secrets.iter().zip(looks.chain(std::iter::repeat(None))) {
            maker.add(secret, Cost::default(), look);
        }
        maker.finish()
    }

    /// R177, A9: the same after a restart, different for another name or file.
    #[test]
    fn decoys_stay_the_same() {
        let (one, again) = (decoy(&["a", "b"], &[]), decoy(&["a", "b"], &[]));
        assert_eq!(one.scram("alice").salt, again.scram("alice").salt);
        assert_ne!(one.scram("alice").salt, one.scram("bob").salt);
        assert_ne!(
            one.scram("alice").salt,
            decoy(&["ab"], &[]).scram("alice").salt
        );
        assert_eq!(one.scram("alice").iterations.get(), ITERATIONS);
    }

    /// Decoys have the iterations and salt lengths of real accounts, in the same proportion.
    #[test]
    fn decoys_look_like_accounts() {
        let decoy = decoy(&["a", "b", "c"], &[(5_000, 12), (9_000, 40), (9_000, 40)]);
        let mut often = 0;
        for n in 0..300 {
            let keys = decoy.scram(&format!("user{n}"));
            match (keys.iterations.get(), keys.salt.len()) {
                (5_000, 12) => {}
                (9_000, 40) => often += 1,
                look => assert_eq!(look, (9_000, 40)),
            }
            let clear = decoy.scram_of(&format!("user{n}"), b"secret");
            assert_eq!((clear.iterations, clear.salt), (keys.iterations, keys.salt));
            if n > 30 {
                assert!(
                    (50..95).contains(&(often * 100 / (n + 1))),
                    "{often} of {n}"
                );
            }
        }
    }
}
