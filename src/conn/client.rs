//! The identity of a client for limits, log and Received: the peer of the socket, or the client that a trusted proxy
//! names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::net::dial;
use crate::net::listen::Peer;
use crate::smtp::xclient::{AddrAttribute, Attributes};
use crate::values::Networks;

/// The name of a client that the proxy does not know.
const UNKNOWN: &str = "unknown";

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    /// `None` if the proxy does not know it.
    peer: Option<Peer>,
    /// The name in log lines.
    log_name: String,
    /// The name in Received (RFC 5321 §4.4).
    trace_name: String,
}

impl Client {
    /// The peer of a socket.
    pub fn new(peer: &Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Self::remote(*address, None),
            Peer::Unix(credentials) => Self {
                peer: Some(*peer),
                log_name: credentials.map_or_else(
                    || "unix".to_owned(),
                    |c| format!("unix:pid={},uid={},gid={}", c.pid, c.uid, c.gid),
                ),
                trace_name: "unix".to_owned(),
            },
        }
    }

    /// The client that a PROXY header names.
    pub fn proxied(source: SocketAddr) -> Self {
        Self::remote(source, None)
    }

    /// A client at an address, with the name that a proxy has looked up.
    pub fn remote(source: SocketAddr, name: Option<&str>) -> Self {
        let address = source.ip().to_canonical();
        // An address literal (RFC 5321 §4.1.3).
        let literal = if address.is_ipv6() {
            format!("[IPv6:{address}]")
        } else {
            format!("[{address}]")
        };
        Self {
            peer: Some(Peer::Tcp(SocketAddr::new(address, source.port()))),
            trace_name: named(name, &literal),
            log_name: literal,
        }
    }

    /// The client that XCLIENT names. Missing attributes keep their value, and a client without an available address
    /// has no rights by address.
    pub fn handed_over(&self, attributes: &Attributes) -> Self {
        let name = attributes.name.as_deref();
        match attributes.address {
            AddrAttribute::Address(address) => {
                let port = attributes.port.unwrap_or(0);
                Self::remote(SocketAddr::new(address, port), name)
            }
            AddrAttribute::Unknown => Self {
                peer: None,
                log_name: UNKNOWN.to_owned(),
                trace_name: named(name, UNKNOWN),
            },
            AddrAttribute::Unchanged => {
                let address = self.trace_name.rsplit(' ').next();
                Self {
                    trace_name: named(name, address.unwrap_or(UNKNOWN)),
                    ..self.clone()
                }
            }
        }
    }

    /// Its address; `None` for a Unix socket.
    pub const fn address(&self) -> Option<IpAddr> {
        match self.peer {
            Some(Peer::Tcp(address)) => Some(address.ip()),
            Some(Peer::Unix(_)) | None => None,
        }
    }

    /// True if it is on this host.
    pub fn is_own(&self) -> bool {
        match self.peer {
            Some(Peer::Tcp(address)) => dial::is_own(address.ip()),
            Some(Peer::Unix(_)) => true,
            None => false,
        }
    }

    /// The form for limits: an IPv4 address, or the /64 of an IPv6 address, which usually is one subscriber.
    pub fn counted(&self) -> Option<IpAddr> {
        Some(match self.address()?.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// True if it is one of these clients.
    pub fn is_in(&self, networks: &Networks) -> bool {
        self.peer.is_some_and(|peer| peer.is_in(networks))
    }

    /// The name in log lines.
    pub fn log_name(&self) -> &str {
        &self.log_name
    }

    /// The name in Received.
    pub fn trace_name(&self) -> &str {
        &self.trace_name
    }
}

/// The client in Received: its name and address, as far as known.
fn named(name: Option<&str>, address: &str) -> String {
    match name {
        Some(name) => format!("{name} {address}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn clients_are_named_by_their_addresses() {
        for (address, literal) in [
            ("192.0.2.1", "[192.0.2.1]"),
            ("::ffff:192.0.2.1", "[192.0.2.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ] {
            let source = SocketAddr::new(address.parse().unwrap(), 25);
            let client = Client::remote(source, Some("mx.test"));
            assert_eq!(client.log_name(), literal);
            assert_eq!(client.trace_name(), format!("mx.test {literal}"));
        }
        assert_eq!(Client::new(&Peer::Unix(None)).log_name(), "unix");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let same = |a: &str, b: &str| {
            let counted = |text: &str| {
                Client::remote(SocketAddr::new(text.parse().unwrap(), 9), None).counted()
            };
            counted(a) == counted(b)
        };
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("::ffff:192.0.2.2", "::ffff:192.0.2.1"));
    }

    /// Missing XCLIENT attributes keep their value, and a client that the proxy does not know has no rights.
    #[test]
    fn xclient_names_another_client() {
        let mut all = Networks::default();
        for network in ["0.0.0.0/0", "::/0", "unix"] {
            all.add(network).unwrap();
        }
        let hand = |client: &Client, said: &str| {
            let attributes = Attributes::parse(said).unwrap();
            client.handed_over(&attributes)
        };
        let shown = |client: &Client| {
            let (log, trace) = (client.log_name().to_owned(), client.trace_name().to_owned());
            (log, trace, client.address().is_some(), client.is_in(&all))
        };
        let proxy = Client::new(&Peer::Unix(None));
        let named = hand(&proxy, "NAME=mx.test");
        let expected = ("unix".into(), "mx.test unix".into(), false, true);
        assert_eq!(shown(&named), expected);
        let real = hand(&named, "ADDR=192.0.2.7 PORT=9 NAME=a.test");
        let expected = (
            "[192.0.2.7]".into(),
            "a.test [192.0.2.7]".into(),
            true,
            true,
        );
        assert_eq!(shown(&real), expected);
        let renamed = hand(&real, "NAME=b.test HELO=x");
        assert_eq!(shown(&renamed).1, "b.test [192.0.2.7]");
        let unknown = hand(&real, "ADDR=[UNAVAILABLE]");
        let expected = ("unknown".into(), "unknown".into(), false, false);
        assert_eq!(shown(&unknown), expected);
    }
}
