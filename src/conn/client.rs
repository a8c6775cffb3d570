//! Who a client is, for limits, log and Received: the other end of its socket, or the one that a trusted proxy names.

use crate::net::listen::Peer;
use std::net::{IpAddr, SocketAddr};

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    peer: Peer,
    /// As log lines name it.
    log_name: String,
    /// As Received names it (RFC 5321 §4.4).
    trace_name: String,
}

impl Client {
    /// The other end of a socket.
    pub fn new(peer: &Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Self::remote(*address, None),
            Peer::Unix(credentials) => Self {
                peer: *peer,
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

    /// A client at an address, under the name that a proxy has looked up for it.
    pub fn remote(source: SocketAddr, name: Option<&str>) -> Self {
        let address = source.ip().to_canonical();
        // An address literal (RFC 5321 §4.1.3).
        let literal = if address.is_ipv6() {
            format!("[IPv6:{address}]")
        } else {
            format!("[{address}]")
        };
        let trace_name = match name {
            Some(name) => format!("{name} {literal}"),
            None => literal.clone(),
        };
        Self {
            peer: Peer::Tcp(SocketAddr::new(address, source.port())),
            log_name: literal,
            trace_name,
        }
    }

    /// Its address; none at a Unix socket.
    pub const fn address(&self) -> Option<IpAddr> {
        match self.peer {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix(_) => None,
        }
    }

    /// Itself as the other end of a socket.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// As log lines name it.
    pub fn log_name(&self) -> &str {
        &self.log_name
    }

    /// As Received names it.
    pub fn trace_name(&self) -> &str {
        &self.trace_name
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
}
