//! The forms of option values: numbers, sizes, durations, names, networks. Text in, values out; `None` means that a
//! text does not have the form. `config` decides which option takes which.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::encoding::number;

/// Maximum duration: a year.
const LONGEST: u64 = 365 * 86_400;

/// A number above 0.
pub fn count(text: &str) -> Option<usize> {
    number(text).filter(|&n| n > 0)
}

/// A number of octets above 0, with K, M or G for powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let units = [('K', 1_u64 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let with_unit = units.into_iter().find_map(|(unit, factor)| {
        let digits = text.strip_suffix([unit, unit.to_ascii_lowercase()])?;
        Some((digits, factor))
    });
    let (digits, factor) = with_unit.unwrap_or((text, 1));
    let octets = number::<u64>(digits)?.checked_mul(factor);
    octets.filter(|&n| n > 0)
}

/// A number above 0 with s, m, h or d after it: a year at most.
pub fn duration(text: &str) -> Option<Duration> {
    let units = [("s", 1_u64), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let seconds = units
        .into_iter()
        .find_map(|(unit, factor)| number::<u64>(text.strip_suffix(unit)?)?.checked_mul(factor));
    let seconds = seconds.filter(|s| (1..=LONGEST).contains(s))?;
    Some(Duration::from_secs(seconds))
}

/// `N/DURATION`: a rate.
pub fn rate(text: &str) -> Option<(u32, Duration)> {
    let (most, span) = text.split_once('/')?;
    let most = number(most).filter(|&n| n > 0)?;
    Some((most, duration(span)?))
}

/// A host name for greeting, EHLO and Received (RFC 1123 §2.1, and `_`, which many systems use), or an address in
/// brackets (RFC 5321 §4.1.3).
pub fn is_hostname(name: &str) -> bool {
    if let Some(literal) = name.strip_prefix('[') {
        let address = literal.strip_suffix(']').unwrap_or_default();
        let v6 = address.strip_prefix("IPv6:");
        return v6.map_or_else(
            || address.parse::<std::net::Ipv4Addr>().is_ok(),
            |v6| v6.parse::<Ipv6Addr>().is_ok(),
        );
    }
    name.is_ascii() && labels(name, |c| c.is_ascii_alphanumeric() || c == '_')
}

/// A domain for `--domain`: letters, digits, hyphens and dots, or U-labels.
pub fn is_domain(name: &str) -> bool {
    labels(name, |c| {
        c.is_ascii_alphanumeric() || (!c.is_ascii() && in_u_label(c))
    })
}

/// Labels of 1 to 63 characters (RFC 1035 §2.3.4), hyphens inside, 255 octets in all.
fn labels(name: &str, letter: impl Fn(char) -> bool) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c == '-' || letter(c))
    };
    name.len() <= 255 && name.split('.').all(label)
}

/// True if a non-ASCII character may be in a U-label. Blanks, controls, punctuation, forms of width and private use may
/// not (RFC 5892 §2); the joiners may.
fn in_u_label(c: char) -> bool {
    let excluded = matches!(c,
        '\u{80}'..='\u{b6}' | '\u{b8}'..='\u{bf}' | '×' | '÷'
        | '\u{61c}' | '\u{2000}'..='\u{200b}' | '\u{200e}'..='\u{209f}'
        | '\u{3000}'..='\u{3004}' | '\u{fe00}'..='\u{fe6f}' | '\u{feff}'..='\u{ffff}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..);
    !excluded && !c.is_whitespace() && !c.is_control()
}

/// A network: an address and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// `ADDRESS[/BITS]`. Bits after the prefix must be 0, because anything else is a typing error.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(number(bits)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        let network = Self { address, bits };
        (bits <= most && network.masked(address) == network.prefix()).then_some(network)
    }

    /// True if an address is in it, also for IPv4 mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.prefix()
    }

    fn prefix(&self) -> u128 {
        octets(self.address)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let drop = 128 - u32::from(self.bits) - if address.is_ipv4() { 96 } else { 0 };
        let mask = u128::MAX.checked_shl(drop).unwrap_or(0);
        octets(address) & mask
    }
}

fn octets(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// A set of clients: networks, and Unix sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// The networks.
    pub networks: Vec<Cidr>,
    /// True if clients on Unix sockets are in the set.
    pub unix: bool,
}

impl Networks {
    /// Adds `CIDR` or `unix`.
    pub fn add(&mut self, text: &str) -> Option<()> {
        if text == "unix" {
            self.unix = true;
        } else {
            self.networks.push(Cidr::parse(text)?);
        }
        Some(())
    }

    /// The entries as text.
    pub fn names(&self) -> Vec<String> {
        let networks = self.networks.iter();
        let networks = networks.map(|Cidr { address, bits }| format!("{address}/{bits}"));
        networks
            .chain(self.unix.then(|| "unix".to_owned()))
            .collect()
    }

    /// True if an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sizes_and_durations() {
        assert_eq!(
            (number::<u8>("255"), number::<u8>("256")),
            (Some(255), None)
        );
        assert_eq!((size("50M"), size("1k")), (Some(50 << 20), Some(1024)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(rate("100/1h"), Some((100, Duration::from_secs(3_600))));
        for wrong in [
            "",
            "0",
            "+5",
            "-1",
            " 5",
            "5 ",
            "٣",
            "ten",
            "1e3",
            "99999999999999999999",
        ] {
            assert_eq!((count(wrong), size(wrong)), (None, None), "{wrong}");
            assert_eq!(duration(&format!("{wrong}s")), None, "{wrong}");
            assert_eq!(rate(&format!("{wrong}/1h")), None, "{wrong}");
        }
        assert_eq!(
            (size("99999999999G"), duration("366d"), duration("5")),
            (None, None, None)
        );
    }

    #[test]
    fn domains_are_letters_digits_hyphens_and_dots_or_u_labels() {
        for right in [
            "example.org",
            "localhost",
            "xn--mller-kva.de",
            "müller.de",
            "हिन्दी.भारत",
            "3.a",
        ] {
            assert!(is_domain(right), "{right}");
        }
        for wrong in [
            "*",
            "*.example.org",
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a_b",
            "a/b",
            "a@b",
            "#",
            "a b",
            "a\u{200b}b",
            "a\u{3002}b",
            "\u{ff41}.org",
            "a\u{202e}b",
            "[192.0.2.1]",
            "a,b",
            "\"a\"",
            "a\u{a0}b",
            "mine;",
        ] {
            assert!(!is_domain(wrong), "{wrong}");
        }
        assert!(!is_domain(&"a".repeat(64)) && !is_domain(&"ab.".repeat(90)));
    }

    #[test]
    fn host_names_may_be_addresses_in_brackets() {
        for right in ["mx", "mx_1.example.org", "[192.0.2.1]", "[IPv6:::1]"] {
            assert!(is_hostname(right), "{right}");
        }
        for wrong in [
            "",
            "a b",
            "mx;",
            "müller",
            "[::1]",
            "[192.0.2.1",
            "[x]",
            "*",
            "a/b",
        ] {
            assert!(!is_hostname(wrong), "{wrong}");
        }
    }

    #[test]
    fn networks_contain_addresses() {
        let inside = |network: &str, address: &str| {
            let network = Cidr::parse(network)?;
            Some(network.contains(address.parse().ok()?))
        };
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", Some(true)),
            ("10.0.0.0/8", "11.0.0.1", Some(false)),
            ("10.0.0.0/8", "::ffff:10.0.0.1", Some(true)),
            ("0.0.0.0/0", "192.0.2.1", Some(true)),
            ("0.0.0.0/0", "::1", Some(false)),
            ("::/0", "2001:db8::1", Some(true)),
            ("2001:db8::/32", "2001:db9::1", Some(false)),
            ("127.0.0.1", "127.0.0.1", Some(true)),
            ("127.0.0.1", "127.0.0.2", Some(false)),
            ("::1/128", "::1", Some(true)),
            ("10.0.0.1/8", "10.0.0.1", None),
            ("10.0.0.0/33", "10.0.0.0", None),
            ("10.0.0.0/+8", "10.0.0.0", None),
            ("10.0.0.0/", "10.0.0.0", None),
            ("10/8", "10.0.0.0", None),
        ] {
            assert_eq!(inside(network, address), expected, "{network} {address}");
        }
        let mut networks = Networks::default();
        assert_eq!((networks.add("unix"), networks.add("x")), (Some(()), None));
        assert!(networks.unix);
    }
}
