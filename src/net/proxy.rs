//! The PROXY protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt defines them: a load balancer tells the client
//! that it connects for. Octets in, addresses out; the caller decides which peers to trust and how long to wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Maximum octets of a header: addresses, and room for the extensions after them.
pub const MAX_HEADER: usize = 2_048;
/// Maximum octets of a version 1 header, CRLF included (§2.1).
const MAX_V1: usize = 107;
/// The signature of version 2 (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets before the addresses of version 2: signature, command, family, length.
const V2_START: usize = 16;
/// The commands of version 2: LOCAL for a connection of the load balancer itself, PROXY for a client's.
const V2_LOCAL: u8 = 0x20;
const COMMANDS: [u8; 2] = [V2_LOCAL, 0x21];
/// The header of a connection without a client, such as a health check.
pub const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The result of parsing the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header.
    More,
    /// A header of `used` octets.
    Whole {
        /// Its length.
        used: usize,
        /// The client and where it connected to; `None` for a connection of the load balancer itself (LOCAL, UNKNOWN).
        addresses: Option<Addresses>,
    },
    /// Something else.
    Garbage,
}

/// Both ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The load balancer's own address, as the client knows it.
    pub destination: SocketAddr,
}

impl Header {
    /// Parses the start of a connection. Garbage is recognised at its first wrong octet.
    pub fn parse(input: &[u8]) -> Self {
        if is_start_of(input, SIGNATURE) {
            version_2(input)
        } else if is_start_of(input, b"PROXY ") {
            version_1(input)
        } else {
            Self::Garbage
        }
    }
}

/// True if one of `input` and `pattern` begins with the other.
fn is_start_of(input: &[u8], pattern: &[u8]) -> bool {
    input
        .iter()
        .zip(pattern)
        .all(|(found, wanted)| found == wanted)
}

/// §2.1: one line, whose parts are separated by one space each.
fn version_1(input: &[u8]) -> Header {
    let line = input.iter().take(MAX_V1).position(|&octet| octet == b'\n');
    let Some(end) = line else {
        return match input.len() < MAX_V1 {
            true => Header::More,
            false => Header::Garbage,
        };
    };
    let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(v1_addresses) {
        Some(addresses) => Header::Whole {
            used: end + 1,
            addresses,
        },
        None => Header::Garbage,
    }
}

/// The addresses of a version 1 line, `Some(None)` for UNKNOWN; `None` if it is malformed.
fn v1_addresses(line: &str) -> Option<Option<Addresses>> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, from, to] = match parts.as_slice() {
        // The rest after UNKNOWN must be ignored.
        ["PROXY", "UNKNOWN", ..] => return Some(None),
        ["PROXY", rest @ ..] => <[&str; 5]>::try_from(rest).ok()?,
        _ => return None,
    };
    let end = |text: &str, port| {
        let ip: IpAddr = match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok()?.into(),
            "TCP6" => text.parse::<Ipv6Addr>().ok()?.into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, decimal_port(port)?))
    };
    Some(Some(Addresses {
        source: end(source, from)?,
        destination: end(destination, to)?,
    }))
}

/// A port without sign and leading zeros.
fn decimal_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

/// §2.2: binary. The extensions after the addresses are skipped.
fn version_2(input: &[u8]) -> Header {
    let Some((start, rest)) = input.split_first_chunk::<V2_START>() else {
        return match input.get(SIGNATURE.len()) {
            Some(command) if !COMMANDS.contains(command) => Header::Garbage,
            _ => Header::More,
        };
    };
    let [.., command, family, high, low] = *start;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let used = V2_START + length;
    if !COMMANDS.contains(&command) || used > MAX_HEADER {
        return Header::Garbage;
    }
    let Some(body) = rest.get(..length) else {
        return Header::More;
    };
    let addresses = match (command, family) {
        (V2_LOCAL, _) => Some(None),
        (_, 0x11) => ends::<4>(body).map(Some),
        (_, 0x21) => ends::<16>(body).map(Some),
        // An unknown family, or a Unix socket: only the load balancer is known.
        (_, 0x00 | 0x31) => Some(None),
        _ => None,
    };
    addresses.map_or(Header::Garbage, |addresses| Header::Whole {
        used,
        addresses,
    })
}

/// Both addresses, then both ports.
fn ends<const N: usize>(body: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let end = |ip, port| SocketAddr::new(IpAddr::from(ip), u16::from_be_bytes(port));
    Some(Addresses {
        source: end(*source, *from),
        destination: end(*destination, *to),
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use super::*;

    fn whole(header: &[u8], source: Option<&str>) {
        let followed = [header, b"EHLO x\r\n"].concat();
        let expected = source.map(|source| source.parse::<SocketAddr>().unwrap());
        match Header::parse(&followed) {
            Header::Whole { used, addresses } => {
                assert_eq!(used, header.len());
                assert_eq!(addresses.map(|addresses| addresses.source), expected);
            }
            other => unreachable!("{other:?} for {header:?}"),
        }
        for length in 0..header.len() {
            assert_eq!(
                Header::parse(&header[..length]),
                Header::More,
                "{length} of {header:?}"
            );
        }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    #[test]
    fn version_1_headers() {
        whole(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 25\r\n",
            Some("192.0.2.1:56324"),
        );
        whole(
            b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n",
            Some("[2001:db8::1]:0"),
        );
        whole(b"PROXY UNKNOWN\r\n", None);
        whole(b"PROXY UNKNOWN ffff::1 what ever 1  2\r\n", None);
        let longest = format!(
            "PROXY TCP6 {0} {0} 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        whole(
            longest.as_bytes(),
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        );
    }

    #[test]
    fn version_2_headers() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 0, 25];
        whole(&binary(0x21, 0x11, &v4), Some("192.0.2.1:56324"));
        let with_extension = [v4.as_slice(), &[0x04, 0, 3, 1, 2, 3]].concat();
        whole(
            &binary(0x21, 0x11, &with_extension),
            Some("192.0.2.1:56324"),
        );
        let mut v6 = [0; 36];
        (v6[15], v6[33]) = (1, 7);
        whole(&binary(0x21, 0x21, &v6), Some("[::1]:7"));
        whole(LOCAL, None);
        whole(&binary(0x20, 0x11, &v4), None);
        whole(&binary(0x21, 0x00, &[1, 2, 3]), None);
        whole(&binary(0x21, 0x31, &[0; 216]), None);
        whole(
            &binary(0x21, 0x11, &[v4.as_slice(), &[0; 2_020]].concat()),
            Some("192.0.2.1:56324"),
        );
    }

    #[test]
    fn garbage() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 0, 25];
        let mut wrong: Vec<Vec<u8>> = [
            "EHLO x\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY \r\n",
            "\r\n\r\n\0\r\nQUIX",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
        wrong.push([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat());
        wrong.push(b"PROXY UNKNOWN \xff\r\n".to_vec());
        wrong.push(binary(0x11, 0x11, &v4));
        wrong.push(binary(0x22, 0x11, &v4));
        wrong.push(binary(0x21, 0x12, &v4));
        wrong.push(binary(0x21, 0x11, &v4[..11]));
        wrong.push(binary(0x21, 0x21, &v4));
        wrong.push(binary(0x21, 0x11, &[0; 2_033]));
        wrong.push([SIGNATURE.as_slice(), &[0x31]].concat());
        for header in wrong {
            assert_eq!(Header::parse(&header), Header::Garbage, "{header:?}");
        }
    }
}
