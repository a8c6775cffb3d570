//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): both sides prove that they know the password without
//! sending it, and PLUS binds the proof to the TLS connection by `tls-exporter` (RFC 9266).
//!
//! Four messages: client-first, server-first, client-final, server-final. The last is sent as one more challenge, and
//! the login succeeds after the client's empty response. A failure is only reported by the SMTP reply, without SCRAM's
//! `e=`.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::accounts::{Account, Accounts};
use super::decoy::Cost;
use super::hashing;
use super::keys::{KEY, ScramKeys, hmac_sha256, sha256};
use super::machine::{ExchangeContext, Machine, Progress, login};
use crate::encoding::{base64_decode, base64_encode};

/// The server's side.
pub(super) struct Scram {
    /// The channel binding, if the mechanism is PLUS and there is one.
    binding: Option<Vec<u8>>,
    plus: bool,
    plus_offered: bool,
    nonce: String,
    state: State,
}

enum State {
    First,
    Final(Final),
    /// The client's proof was right; its empty response to the server's proof is pending.
    Proven {
        user: String,
    },
}

impl Scram {
    /// Without channel binding.
    pub(super) fn new(context: &ExchangeContext<'_>) -> Self {
        Self {
            binding: None,
            plus: false,
            plus_offered: context.plus_offered,
            nonce: context.nonce.clone(),
            state: State::First,
        }
    }

    /// With channel binding.
    pub(super) fn plus(context: &ExchangeContext<'_>) -> Self {
        Self {
            binding: context.exporter.map(<[u8]>::to_vec),
            plus: true,
            ..Self::new(context)
        }
    }

    /// Handles client-first and returns server-first.
    fn first(&mut self, message: &[u8], accounts: &mut dyn Accounts) -> Progress {
        let Some(first) = std::str::from_utf8(message).ok().and_then(First::parse) else {
            return Progress::Malformed;
        };
        accounts.tried(first.user.as_bytes());
        let Some(channel) = self.channel(&first) else {
            return Progress::Failed;
        };
        if first.mandatory_extension || first.authzid.as_ref().is_some_and(|id| *id != first.user) {
            return Progress::Failed;
        }
        let Some(name) = login(first.user.as_bytes()) else {
            return Progress::Failed;
        };

        // The decoy is made, and the time of a key derivation spent, in any case.
        let decoy = accounts.decoy();
        let permit = hashing::permit();
        let shown = accounts.decoy_name(name);
        let unmatched = decoy.scram(&shown);
        let (user, keys, spent) = match accounts.account(name) {
            Account::Known { user, stored } => match stored.scram(&shown, &decoy) {
                Some((keys, spent)) => (Some(user), keys, spent),
                None => (None, unmatched, Cost::default()),
            },
            Account::Unknown => (None, unmatched, Cost::default()),
        };
        decoy.burn(b"", spent);
        drop(permit);

        let nonce = format!("{}{}", first.nonce, self.nonce);
        let server_first = format!(
            "r={nonce},s={},i={}",
            base64_encode(&keys.salt),
            keys.iterations
        );
        self.state = State::Final(Final {
            channel: base64_encode(&[first.gs2_header.as_bytes(), &channel].concat()),
            messages: format!("{},{server_first}", first.bare),
            nonce,
            user,
            keys,
        });
        Progress::Challenge(server_first.into_bytes())
    }

    /// The binding data after the header in `c=`; `None` if the client's flag does not match (RFC 5802 §6).
    fn channel(&self, first: &First<'_>) -> Option<Vec<u8>> {
        match first.flag {
            Flag::None if !self.plus => Some(Vec::new()),
            // The client supports binding but did not see our offer: it was stripped on the way.
            Flag::NotOffered if !self.plus && !self.plus_offered => Some(Vec::new()),
            Flag::Bound("tls-exporter") if self.plus => self.binding.clone(),
            _ => None,
        }
    }
}

impl Machine for Scram {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        let Some(response) = response else {
            return match self.state {
                State::First => Progress::Challenge(Vec::new()),
                _ => Progress::Malformed,
            };
        };
        match &self.state {
            State::First => self.first(response, accounts),
            State::Final(last) => {
                let (progress, user) = last.check(response);
                if let Some(user) = user {
                    self.state = State::Proven { user };
                }
                progress
            }
            State::Proven { user } if response.is_empty() => Progress::Done { user: user.clone() },
            State::Proven { .. } => Progress::Malformed,
        }
    }
}

/// The values that client-final is checked against.
struct Final {
    /// The expected `c=`.
    channel: String,
    /// The expected `r=`.
    nonce: String,
    /// client-first-bare "," server-first
    messages: String,
    /// `None` if the keys are a decoy.
    user: Option<String>,
    keys: ScramKeys,
}

impl Final {
    /// Handles client-final; returns server-final and the user if the proof is right.
    fn check(&self, message: &[u8]) -> (Progress, Option<String>) {
        let Some(last) = std::str::from_utf8(message)
            .ok()
            .and_then(ClientFinal::parse)
        else {
            return (Progress::Malformed, None);
        };
        let auth_message = format!("{},{}", self.messages, last.without_proof);
        let right = self.proves(&last.proof, auth_message.as_bytes());
        let same = last.channel == self.channel && last.nonce == self.nonce;
        match &self.user {
            Some(user) if right && same => {
                let signature =
                    hmac_sha256(self.keys.server_key.as_slice(), auth_message.as_bytes());
                let verifier = format!("v={}", base64_encode(&signature));
                (
                    Progress::Challenge(verifier.into_bytes()),
                    Some(user.clone()),
                )
            }
            _ => (Progress::Failed, None),
        }
    }

    /// RFC 5802 §3: ClientProof XOR ClientSignature is a key whose hash is stored.
    fn proves(&self, proof: &[u8; KEY], auth_message: &[u8]) -> bool {
        let mut client_key =
            Zeroizing::new(hmac_sha256(self.keys.stored_key.as_slice(), auth_message));
        for (octet, proof) in client_key.iter_mut().zip(proof) {
            *octet ^= proof;
        }
        sha256(client_key.as_slice())
            .ct_eq(&*self.keys.stored_key)
            .into()
    }
}

/// `client-first-message` (RFC 5802 §7).
struct First<'a> {
    flag: Flag<'a>,
    gs2_header: &'a str,
    authzid: Option<String>,
    bare: &'a str,
    mandatory_extension: bool,
    user: String,
    nonce: &'a str,
}

/// `gs2-cbind-flag`.
enum Flag<'a> {
    /// `n`: the client can't bind.
    None,
    /// `y`: it can, but believes that the server can't.
    NotOffered,
    /// `p=`: it does, with this type.
    Bound(&'a str),
}

impl<'a> First<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let (flag, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        let flag = match flag {
            "n" => Flag::None,
            "y" => Flag::NotOffered,
            _ => Flag::Bound(
                flag.strip_prefix("p=")
                    .filter(|name| is_binding_name(name))?,
            ),
        };
        let authzid = match authzid {
            "" => None,
            _ => Some(unescape(authzid.strip_prefix("a=")?)?),
        };
        let mandatory_extension = bare.starts_with("m=");
        let mut attributes = bare.split(',').skip(usize::from(mandatory_extension));
        let user = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes
            .next()?
            .strip_prefix("r=")
            .filter(|nonce| is_nonce(nonce))?;
        let extensions = attributes.all(is_attribute);
        extensions.then_some(Self {
            flag,
            gs2_header: message.get(..message.len() - bare.len())?,
            authzid,
            bare,
            mandatory_extension,
            user,
            nonce,
        })
    }
}

/// `client-final-message` (RFC 5802 §7).
struct ClientFinal<'a> {
    without_proof: &'a str,
    channel: &'a str,
    nonce: &'a str,
    proof: [u8; KEY],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let extensions = attributes.all(is_attribute);
        let proof = base64_decode(proof.as_bytes()).filter(|_| extensions)?;
        Some(Self {
            without_proof,
            channel,
            nonce,
            proof: proof.try_into().ok()?,
        })
    }
}

/// `cb-name`.
fn is_binding_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'.' || octet == b'-')
}

/// `printable`: visible ASCII except the comma.
fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty()
        && nonce
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && octet != b',')
}

/// `attr-val` of an optional extension, which is signed but ignored.
fn is_attribute(text: &str) -> bool {
    let mut octets = text.bytes();
    octets
        .next()
        .is_some_and(|octet| octet.is_ascii_alphabetic())
        && octets.next() == Some(b'=')
        && octets.len() > 0
        && octets.all(|octet| octet != 0)
}

/// `saslname`: `=2C` is a comma and `=3D` an equals sign, any other `=` is an error.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', part.strip_prefix("3D")?),
        };
        out.push(escaped);
        out.push_str(rest);
    }
    (!name.is_empty() && !name.contains('\0')).then_some(out)
}

#[cfg(test)]
mod tests;
