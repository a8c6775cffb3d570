//! Unpredictable octets, from the system.

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};

/// As many octets as the caller's array has.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn octets<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    let filled = SystemRandom::new().fill(&mut octets);
    filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(octets)
}
