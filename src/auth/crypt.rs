//! SHA-crypt, the `$5$` and `$6$` password hashes of crypt(3), as Drepper's "Unix crypt using SHA-256 and SHA-512"
//! defines them, on the hash functions of ring. It parses stored hashes and checks passwords against them; `password`
//! maps scheme names to it.

use std::ops::RangeInclusive;

use ring::digest::{self, Algorithm, Digest};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::encoding::number;

/// The default rounds.
const DEFAULT_ROUNDS: u32 = 5_000;
/// Rounds accepted in a file: Drepper's minimum, and a maximum of about a second.
const ROUNDS: RangeInclusive<u32> = 1_000..=1_000_000;
/// Maximum octets of the salt.
const MAX_SALT: usize = 16;
/// Maximum octets of a password, as in crypt(3): the work grows with the square of the length.
const MAX_PASSWORD: usize = 511;
/// The digits of crypt's base64, low bits first.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The two hash functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `$5$`.
    Sha256,
    /// `$6$`.
    Sha512,
}

impl Family {
    /// The prefix of a stored hash.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Sha256 => "$5$",
            Self::Sha512 => "$6$",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Characters of the encoded hash.
    const fn encoded(self) -> usize {
        match self {
            Self::Sha256 => 43,
            Self::Sha512 => 86,
        }
    }
}

/// A stored hash.
pub struct ShaCrypt {
    family: Family,
    rounds: u32,
    salt: String,
    /// The encoded hash from the file; computed hashes are encoded for the comparison.
    hash: Zeroizing<String>,
}

impl ShaCrypt {
    /// Parses `$5$[rounds=N$]salt$hash` or `$6$…`.
    ///
    /// # Errors
    /// The reason, without the value.
    pub fn parse(value: &str) -> Result<Self, String> {
        let families = [Family::Sha256, Family::Sha512];
        let (family, rest) = families
            .into_iter()
            .find_map(|family| Some((family, value.strip_prefix(family.prefix())?)))
            .ok_or("a crypt hash that can be verified begins with $5$ or $6$")?;
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (rounds, rest) = rest.split_once('$').ok_or("the crypt hash has no salt")?;
                (read_rounds(rounds)?, rest)
            }
            None => (DEFAULT_ROUNDS, rest),
        };
        let (salt, hash) = rest.split_once('$').ok_or("the crypt hash has no salt")?;
        if salt.len() > MAX_SALT {
            return Err(format!(
                "the salt of a crypt hash has at most {MAX_SALT} octets"
            ));
        }
        if hash.len() != family.encoded() || !hash.bytes().all(|c| ALPHABET.contains(&c)) {
            return Err(format!(
                "the hash after {} is {} characters of ./0-9A-Za-z",
                family.prefix(),
                family.encoded()
            ));
        }
        Ok(Self {
            family,
            rounds,
            salt: salt.to_owned(),
            hash: Zeroizing::new(hash.to_owned()),
        })
    }

    /// The hash function.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The rounds of one [`Self::verify`].
    pub const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Checks a password in constant time. One that crypt(3) would not hash is wrong.
    pub fn verify(&self, password: &[u8]) -> bool {
        if password.len() > MAX_PASSWORD {
            return false;
        }
        let found = compute(self.family, password, self.salt.as_bytes(), self.rounds);
        found.is_some_and(|found| found.as_bytes().ct_eq(self.hash.as_bytes()).into())
    }
}

/// Spends the time of that many rounds.
pub(super) fn burn(family: Family, password: &[u8], rounds: u32) {
    if rounds > 0 && password.len() <= MAX_PASSWORD {
        std::hint::black_box(compute(family, password, &[b'.'; MAX_SALT], rounds));
    }
}

fn read_rounds(text: &str) -> Result<u32, String> {
    number(text)
        .filter(|_| !text.starts_with('0'))
        .filter(|rounds| ROUNDS.contains(rounds))
        .ok_or_else(|| {
            format!(
                "a crypt hash takes {} to {} rounds",
                ROUNDS.start(),
                ROUNDS.end()
            )
        })
}

/// The encoded hash of a password: the numbered steps of Drepper's text. `None` if ring's digest had another length.
fn compute(family: Family, password: &[u8], salt: &[u8], rounds: u32) -> Option<Zeroizing<String>> {
    let algorithm = family.algorithm();
    let hash = |parts: &[&[u8]]| {
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    // Steps 4 to 8.
    let b = hash(&[password, salt, password]);
    // Steps 1 to 3 and 9 to 12.
    let mut context = digest::Context::new(algorithm);
    context.update(password);
    context.update(salt);
    context.update(&repeat(b.as_ref(), password.len()));
    let mut bits = password.len();
    while bits > 0 {
        context.update(if bits & 1 == 1 { b.as_ref() } else { password });
        bits >>= 1;
    }
    let mut last = context.finish();
    // Steps 13 to 16: the sequence P.
    let mut context = digest::Context::new(algorithm);
    password.iter().for_each(|_| context.update(password));
    let p = repeat(context.finish().as_ref(), password.len());
    // Steps 17 to 20: the sequence S.
    let times = 16 + usize::from(*last.as_ref().first()?);
    let mut context = digest::Context::new(algorithm);
    (0..times).for_each(|_| context.update(salt));
    let s = repeat(context.finish().as_ref(), salt.len());
    // Step 21.
    for round in 0..rounds {
        last = one_round(algorithm, round, &last, &p, &s);
    }
    encode(family, last.as_ref())
}

/// Step 21 for one round.
fn one_round(
    algorithm: &'static Algorithm,
    round: u32,
    last: &Digest,
    p: &[u8],
    s: &[u8],
) -> Digest {
    let mut context = digest::Context::new(algorithm);
    let odd = !round.is_multiple_of(2);
    context.update(if odd { p } else { last.as_ref() });
    if !round.is_multiple_of(3) {
        context.update(s);
    }
    if !round.is_multiple_of(7) {
        context.update(p);
    }
    context.update(if odd { last.as_ref() } else { p });
    context.finish()
}

/// Repeats the octets of a digest up to `length`.
fn repeat(octets: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(octets.iter().copied().cycle().take(length).collect())
}

/// Step 22: one octet from each third of the digest make four digits, and the rest two or three. Which third comes
/// first goes round with each step.
fn encode(family: Family, digest: &[u8]) -> Option<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(family.encoded()));
    let mut thirds = digest.chunks_exact(digest.len() / 3);
    let (first, second, third) = (thirds.next()?, thirds.next()?, thirds.next()?);
    for (step, ((&x, &y), &z)) in first.iter().zip(second).zip(third).enumerate() {
        let (high, middle, low) = match (step % 3, family) {
            (0, _) => (x, y, z),
            (1, Family::Sha256) | (2, Family::Sha512) => (z, x, y),
            _ => (y, z, x),
        };
        push(&mut text, [high, middle, low], 4)?;
    }
    match thirds.remainder() {
        [low, high] => push(&mut text, [0, *high, *low], 3)?,
        [low] => push(&mut text, [0, 0, *low], 2)?,
        _ => return None,
    }
    Some(text)
}

/// Appends the lowest digits of a number of three octets.
fn push(text: &mut String, [high, middle, low]: [u8; 3], digits: u32) -> Option<()> {
    let bits = u32::from_be_bytes([0, high, middle, low]);
    for place in 0..digits {
        let value = usize::try_from(bits >> (6 * place) & 63).ok()?;
        text.push(char::from(*ALPHABET.get(value)?));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Drepper's own vectors, and others that crypt(3) of libxcrypt made.
    const VECTORS: &[(&str, &str)] = &[
        (
            "Hello world!",
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        ),
        (
            "Hello world!",
            "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
        ),
        (
            "This is just a test",
            "$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5",
        ),
        (
            "a very much longer text to encrypt.  This one even stretches over morethan one line.",
            "$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1",
        ),
        (
            "the minimum number is still observed",
            "$5$rounds=1000$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC",
        ),
        (
            "\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\
             \u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\
             \u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\
             \u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}",
            "$5$$FYRNrE6aVUgj.orACNPSFHuOP64jAfIw9USKndQy7p2",
        ),
        (
            "Hello world!",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLi\
             BFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "Hello world!",
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/\
             UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        ),
        (
            "",
            "$6$x$QSmr1Bx2g4O6BzKvdkgOcyU6H91X6I/XBv5pSalMhSPkwdH6Beo3F455xZJg0v//bxVK5F4O\
             E5k1.0xuR26MK0",
        ),
        // Made by `doveadm pw`.
        (
            "secret",
            "$5$dTVKABOBjF3zYrpJ$XRvKuTl6AOVrmIUTcNjsufcPirsXFhSB/eHjiUJ.IB9",
        ),
        (
            "secret",
            "$6$dVc7GKrtwd6ODOVq$oNvXS6M1Xo/SxqQ8.Xqa0ujzqruTMIq7olip10QzV4uaEBJ8SbUu7OOH\
             YBfSgh.Uu49DoRIEnJd00.pb5pK8I/",
        ),
    ];

    #[test]
    fn known_hashes() {
        for (password, stored) in VECTORS {
            let hash = ShaCrypt::parse(stored).unwrap();
            assert!(hash.verify(password.as_bytes()), "{stored}");
            assert!(!hash.verify(format!("{password}x").as_bytes()), "{stored}");
        }
    }

    /// A longer password than crypt(3) accepts is wrong, and costs nothing.
    #[test]
    fn overlong_passwords_are_wrong() {
        let long = "x".repeat(MAX_PASSWORD + 1);
        let salt = "$6$rounds=1000$ab$";
        let hash = compute(Family::Sha512, long.as_bytes(), b"ab", 1_000).unwrap();
        let stored = ShaCrypt::parse(&format!("{salt}{}", hash.as_str()));
        assert!(stored.is_ok_and(|stored| !stored.verify(long.as_bytes())));
        let longest = "x".repeat(MAX_PASSWORD);
        let hash = compute(Family::Sha512, longest.as_bytes(), b"ab", 1_000).unwrap();
        let stored = ShaCrypt::parse(&format!("{salt}{}", hash.as_str()));
        assert!(stored.is_ok_and(|stored| stored.verify(longest.as_bytes())));
    }

    #[test]
    fn texts_that_are_not_hashes() {
        let hash = "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";
        for wrong in [
            "$1$saltstring$5B8vYYiY".to_owned(),
            "$2y$05$XWZ7S9koiOgrakBnXk/zxe7FFf".to_owned(),
            format!("saltstring${hash}"),
            "$5$saltstring".to_owned(),
            "$5$rounds=5000".to_owned(),
            format!("$5$rounds=999$salt${hash}"),
            format!("$5$rounds=1000001$salt${hash}"),
            format!("$5$rounds=+5000$salt${hash}"),
            format!("$5$rounds=05000$salt${hash}"),
            format!("$5$rounds=99999999999$salt${hash}"),
            format!("$5$rounds=$salt${hash}"),
            format!("$5$saltstringsaltstr1${hash}"),
            format!("$5$salt${hash}x"),
            format!("$6$salt${hash}"),
            format!("$5$salt${}!", hash.split_at(42).0),
            "$5$".to_owned(),
        ] {
            assert!(ShaCrypt::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
