//! The attributes of XCLIENT, as Postfix's XCLIENT_README describes them: what a proxy says about the client that it
//! connects for.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::encoding::{number, xtext_decode, xtext_octets};

/// Maximum octets of a name.
const MAX_NAME: usize = 255;

/// The ADDR attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddrAttribute {
    /// Not given: the address stays.
    #[default]
    Unchanged,
    /// `[UNAVAILABLE]`.
    Unknown,
    /// An address.
    Address(IpAddr),
}

/// The attributes. One that is missing, `[UNAVAILABLE]` or `[TEMPUNAVAIL]` is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The client's host name.
    pub name: Option<String>,
    /// The client's address.
    pub address: AddrAttribute,
    /// The client's port.
    pub port: Option<u16>,
    /// True if the client speaks ESMTP.
    pub extended: bool,
    /// The client's name in HELO or EHLO.
    pub helo: Option<String>,
    /// The login name at the proxy.
    pub login: Option<String>,
    /// The address that the client connected to.
    pub local_address: Option<IpAddr>,
    /// The port that the client connected to.
    pub local_port: Option<u16>,
}

impl Attributes {
    /// Reads `NAME=value` words with values in xtext (RFC 3461 §4); the last of several counts. `None` if a word is
    /// malformed or unknown, or there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut attributes = Self::default();
        let mut words = text.split_ascii_whitespace().peekable();
        words.peek()?;
        for word in words {
            let (name, value) = word.split_once('=')?;
            if name.eq_ignore_ascii_case("HELO") {
                attributes.helo = helo(value)?;
                continue;
            }
            let value = xtext_decode(value).filter(|value| !value.is_empty())?;
            attributes.set(name, &value)?;
        }
        Some(attributes)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let value = Some(value).filter(|value| !is_unavailable(value));
        match name.to_ascii_uppercase().as_str() {
            "NAME" => self.name = optional(value, host_name)?,
            "ADDR" => {
                let found = optional(value, address)?;
                self.address = found.map_or(AddrAttribute::Unknown, AddrAttribute::Address);
            }
            "PORT" => self.port = optional(value, number)?,
            "PROTO" => self.extended = optional(value, extended)?.unwrap_or(false),
            "LOGIN" => self.login = optional(value, short)?,
            "DESTADDR" => self.local_address = optional(value, address)?,
            "DESTPORT" => self.local_port = optional(value, number)?,
            _ => return None,
        }
        Some(())
    }
}

/// The inner `None` is a missing value, the outer one a malformed value.
fn optional<T>(value: Option<&str>, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => parse(value).map(Some),
    }
}

fn is_unavailable(value: &str) -> bool {
    let unavailable = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
    unavailable.iter().any(|u| u.eq_ignore_ascii_case(value))
}

/// The HELO attribute: any name that the command takes.
fn helo(value: &str) -> Option<Option<String>> {
    let name = xtext_octets(value).filter(|name| !name.is_empty())?;
    let name = client_name(&name)?;
    Some(Some(name).filter(|name| !is_unavailable(name)))
}

/// A client's name as text, with invalid UTF-8 and C1 controls as `\\xHH`, cut if it is long; `None` if it has ASCII
/// control characters.
pub(super) fn client_name(name: &[u8]) -> Option<String> {
    if name.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let _ = write!(text, "\\x{:02X}", u32::from(c));
            } else {
                text.push(c);
            }
        }
        for octet in chunk.invalid() {
            let _ = write!(text, "\\x{octet:02X}");
        }
    }
    Some(text.chars().take(MAX_NAME).collect())
}

fn short(value: &str) -> Option<String> {
    (value.len() <= MAX_NAME).then(|| value.to_owned())
}

/// A host name; it becomes a word of Received.
fn host_name(value: &str) -> Option<String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    short(value).filter(|name| name.chars().all(plain))
}

fn address(value: &str) -> Option<IpAddr> {
    match value.split_at_checked("IPV6:".len()) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPV6:") => {
            let address: Ipv6Addr = rest.parse().ok()?;
            Some(IpAddr::V6(address).to_canonical())
        }
        _ => value.parse().ok().map(|address: Ipv4Addr| address.into()),
    }
}

/// LMTP is not Postfix's; Dovecot says so as a proxy for LMTP.
fn extended(value: &str) -> Option<bool> {
    let is = |name: &str| value.eq_ignore_ascii_case(name);
    match is("ESMTP") || is("LMTP") {
        true => Some(true),
        false => is("SMTP").then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes() {
        let text = "name=spike.example ADDR=168.100.189.2 PORT=4711 PROTO=ESMTP HELO=a+20b \
                    LOGIN=alice DESTADDR=ipv6:2001:db8::1 DESTPORT=25";
        assert_eq!(
            Attributes::parse(text),
            Some(Attributes {
                name: Some("spike.example".into()),
                address: AddrAttribute::Address(Ipv4Addr::new(168, 100, 189, 2).into()),
                port: Some(4711),
                extended: true,
                helo: Some("a b".into()),
                login: Some("alice".into()),
                local_address: "2001:db8::1".parse().ok(),
                local_port: Some(25),
            })
        );
        let nothing = "NAME=[UNAVAILABLE] LOGIN=[unavailable] PROTO=SMTP";
        assert_eq!(Attributes::parse(nothing), Some(Attributes::default()));
        for (text, name) in [
            ("HELO=HP+20LaserJet", Some("HP LaserJet".to_owned())),
            ("helo=M+DCLLER-PC", Some("M\\xDCLLER-PC".to_owned())),
            ("HELO=[UNAVAILABLE]", None),
            (&format!("HELO={}", "x".repeat(300)), Some("x".repeat(255))),
        ] {
            let helo = Attributes::parse(text).map(|attributes| attributes.helo);
            assert_eq!(helo, Some(name), "{text}");
        }
        for (proto, extended) in [("SMTP", false), ("esmtp", true), ("LMTP", true)] {
            let found = Attributes::parse(&format!("PROTO={proto}"));
            assert_eq!(found.map(|found| found.extended), Some(extended), "{proto}");
        }
        let source = |text: &str| Attributes::parse(text).map(|attributes| attributes.address);
        assert_eq!(source("ADDR=[TEMPUNAVAIL]"), Some(AddrAttribute::Unknown));
        let last = source("ADDR=192.0.2.1 ADDR=[UNAVAILABLE]");
        assert_eq!(last, Some(AddrAttribute::Unknown));
        for bad in [
            "",
            "NAME",
            "NAME=",
            "NAME=a)+20b",
            "FOO=bar",
            "ADDR=host.example",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:1.2.3.4",
            "PORT=65536",
            "PORT=+1",
            "PROTO=QMTP",
            "HELO=a+0D+0Ab",
            "HELO=a+2",
        ] {
            assert_eq!(Attributes::parse(bad), None, "{bad}");
        }
    }
}
