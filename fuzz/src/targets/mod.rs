//! One function a fuzz target: octets in, a panic if something is wrong. They are compiled twice: for cargo-fuzz, and
//! in the tests, which replay `fuzz/corpus/` on a stable compiler.

mod files;
mod login;
mod quota;
mod session;
mod wire;

/// What is run on octets.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("addresses", wire::addresses),
    ("aliases", files::aliases),
    ("bdat", wire::bdat),
    ("commands", wire::commands),
    ("config", files::config),
    ("domains", wire::domains),
    ("dots", wire::dots),
    ("encodings", wire::encodings),
    ("envelope", files::envelope),
    ("keys", files::keys),
    ("login", login::login),
    ("maildirsize", quota::maildirsize),
    ("password", login::password),
    ("proxy", wire::proxy),
    ("session", session::session),
    ("users", files::users),
];

/// Runs the target of this name.
pub fn run(name: &str, octets: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no target {name}"));
    target(octets);
}

/// Takes the first octet off as a number.
fn first(octets: &[u8]) -> (usize, &[u8]) {
    octets
        .split_first()
        .map_or((0, octets), |(&first, rest)| (first.into(), rest))
}
