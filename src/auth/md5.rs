//! MD5 (RFC 1321) with an accessible chaining state, only for CRAM-MD5.
//!
//! The `{CRAM-MD5}` stored form is the MD5 state after the first block of HMAC's inner and outer hash: verifying it
//! means resuming MD5 from a given state. ring has no MD5, and no small crate was found that exposes its state in a
//! documented way. MD5 is broken where collisions matter; HMAC-MD5 does not depend on them (RFC 6151), but SCRAM is
//! better.

use zeroize::{Zeroize, Zeroizing};

/// Octets of an MD5 block.
const BLOCK: usize = 64;

/// The rotation of each step: one row for each round, used in turn.
const SHIFTS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// The order of words in each round: the first word, and the step to the next.
const ORDER: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

/// The integer parts of 2^32 · |sin i|, i = 1 to 64.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// The chaining state of MD5 between two blocks, erased when dropped.
#[derive(Clone)]
pub(super) struct State([u32; 4]);

impl State {
    /// The state before the first block (RFC 1321 §3.3).
    const fn new() -> Self {
        Self([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476])
    }

    /// Parses a state in the form of a digest: four words, least significant octet first.
    pub(super) fn from_bytes(bytes: &[u8; 16]) -> Self {
        let mut state = [0; 4];
        for (word, octets) in state.iter_mut().zip(words(bytes)) {
            *word = octets;
        }
        Self(state)
    }

    /// The state in the form of a digest.
    pub(super) fn to_bytes(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let octets = self.0.iter().flat_map(|word| word.to_le_bytes());
        for (to, from) in out.iter_mut().zip(octets) {
            *to = from;
        }
        out
    }

    /// Hashes `message` as the last octets of a text of which `before` octets, whole blocks, are already hashed;
    /// returns the digest.
    fn finish(mut self, before: usize, message: &[u8]) -> [u8; 16] {
        let mut padded = Zeroizing::new(Vec::with_capacity(message.len() + 2 * BLOCK));
        padded.extend_from_slice(message);
        padded.push(0x80);
        while padded.len() % BLOCK != BLOCK - 8 {
            padded.push(0);
        }
        let bits = ((before + message.len()) as u64).wrapping_mul(8);
        padded.extend_from_slice(&bits.to_le_bytes());
        for block in padded.chunks_exact(BLOCK) {
            self.block(block);
        }
        self.to_bytes()
    }

    /// One block of 64 octets (RFC 1321 §3.4).
    fn block(&mut self, block: &[u8]) {
        let mut x = Zeroizing::new([0; 16]);
        for (to, from) in x.iter_mut().zip(words(block)) {
            *to = from;
        }
        let shifts = SHIFTS.iter().flat_map(|row| row.iter().cycle().take(16));
        let order = ORDER
            .iter()
            .flat_map(|&(first, step)| x.iter().cycle().skip(first).step_by(step).take(16));
        let [mut a, mut b, mut c, mut d] = self.0;
        for (((i, sine), shift), word) in SINES.iter().enumerate().zip(shifts).zip(order) {
            let mixed = match i / 16 {
                0 => (b & c) | (!b & d),
                1 => (b & d) | (c & !d),
                2 => b ^ c ^ d,
                _ => c ^ (b | !d),
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(*sine)
                .wrapping_add(*word);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(*shift));
        }
        for (state, add) in self.0.iter_mut().zip([a, b, c, d]) {
            *state = state.wrapping_add(add);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// HMAC-MD5 (RFC 2104) with the key already hashed in: all that CRAM-MD5 needs of a password.
#[derive(Clone)]
pub(super) struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    /// Hashes in a key of any length.
    pub(super) fn new(key: &[u8]) -> Self {
        let digest = (key.len() > BLOCK).then(|| Zeroizing::new(digest(key)));
        let key = digest.as_ref().map_or(key, |digest| digest.as_slice());
        Self {
            inner: keyed(key, 0x36),
            outer: keyed(key, 0x5c),
        }
    }

    /// The inner and outer states, as `{CRAM-MD5}` holds them.
    pub(super) fn from_states(outer: &[u8; 16], inner: &[u8; 16]) -> Self {
        Self {
            inner: State::from_bytes(inner),
            outer: State::from_bytes(outer),
        }
    }

    /// The outer and then the inner state: 32 octets that are equivalent to the password for CRAM-MD5.
    pub(super) fn to_states(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(32));
        out.extend_from_slice(&self.outer.to_bytes());
        out.extend_from_slice(&self.inner.to_bytes());
        out
    }

    /// The code for `message`.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 16] {
        let inner = self.inner.clone().finish(BLOCK, message);
        self.outer.clone().finish(BLOCK, &inner)
    }
}

/// The MD5 digest of `message`.
fn digest(message: &[u8]) -> [u8; 16] {
    State::new().finish(0, message)
}

/// The state after HMAC's first block: a key of at most 64 octets, combined with a pad octet.
fn keyed(key: &[u8], pad: u8) -> State {
    let mut block = Zeroizing::new([pad; BLOCK]);
    for (to, from) in block.iter_mut().zip(key) {
        *to ^= from;
    }
    let mut state = State::new();
    state.block(block.as_slice());
    state
}

/// Octets as little-endian words.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::encoding::hex_encode as hex;

    /// RFC 1321 appendix A.5.
    #[test]
    fn rfc_1321_vectors() {
        for (message, want) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "abcdefghijklmnopqrstuvwxyz",
                "c3fcd3d76192e4007dfb496cca67e13b",
            ),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ] {
            assert_eq!(hex(&digest(message.as_bytes())), want, "{message}");
        }
    }

    /// RFC 2202 §2: a short key, a text key, a key longer than a block.
    #[test]
    fn rfc_2202_vectors() {
        let long = [0xaa; 80];
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        for (key, message, want) in [
            (
                &[0x0b; 16][..],
                &b"Hi There"[..],
                "9294727a3638bb1c13f48ef8158bfc9d",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "750c783e6ab0b503eaa86e310a5db738",
            ),
            (&long, message, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
        ] {
            assert_eq!(hex(&Hmac::new(key).sign(message)), want);
        }
    }

    #[test]
    fn states_go_out_and_in() {
        let hmac = Hmac::new(b"secret");
        let states = hmac.to_states();
        let (outer, inner) = states.split_at(16);
        let again = Hmac::from_states(outer.try_into().unwrap(), inner.try_into().unwrap());
        assert_eq!(again.sign(b"x"), hmac.sign(b"x"));
    }
}
