//! Connecting: sockets with a deadline, and the hosts that take the mail of a domain (RFC 5321 §5.1).

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::socket::{connect as connect_socket, setsockopt, socket as new_socket};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::dns::{Error, Mx, Resolver, to_alabel};
use super::socket::{Socket, time_left};
use crate::warnings::warn;

/// Maximum exchangers of a domain that are considered.
const MAX_EXCHANGERS: usize = 20;
/// Maximum addresses of an exchanger that are tried.
const MAX_ADDRESSES: usize = 8;
/// Time after which no further exchanger is looked up.
const LOOK_UPS: Duration = Duration::from_secs(2 * 60);

/// The destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Connects by `deadline`.
///
/// # Errors
/// `TimedOut`, or an error of the system.
pub fn connect(address: &Address, deadline: Instant) -> io::Result<Socket> {
    let left = time_left(deadline)?;
    match address {
        Address::Tcp(address) => {
            let socket = TcpStream::connect_timeout(address, left)?;
            socket.set_nodelay(true)?;
            Ok(Socket::Tcp(socket))
        }
        Address::Unix(path) => connect_unix(path, left).map(Socket::Unix),
    }
}

/// On a Unix socket `connect` waits for a busy server as long as the send timeout allows.
fn connect_unix(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = new_socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    setsockopt(
        &socket,
        sockopt::SendTimeout,
        &TimeVal::milliseconds(millis),
    )?;
    match connect_socket(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::EAGAIN) => Err(ErrorKind::TimedOut.into()),
        Err(e) => Err(e.into()),
    }
}

/// True if an address belongs to an interface of this host.
pub fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let own = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let four = storage.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        four.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    let all = getifaddrs().inspect_err(|e| {
        warn(&format!(
            "own addresses unknown call=\"getifaddrs\" error={e}"
        ));
    });
    all.is_ok_and(|mut all| all.any(|interface| own(interface) == Some(address)))
}

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// The name in ASCII, or the address.
    pub host: String,
    /// The addresses, in the order to try them.
    pub addresses: Vec<IpAddr>,
}

/// Why a domain has no host for its mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// The domain does not exist, or none of its hosts has an address: 5.1.2.
    NoSuchDomain,
    /// It accepts no mail (RFC 7505): 5.1.10.
    NullMx,
    /// This host is the best exchanger itself: 5.4.6.
    Loop,
    /// A temporary failure of a look-up: 4.4.3.
    Later(String),
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchDomain => "The domain does not exist or has no mail server with an address",
            Self::NullMx => "The domain accepts no mail",
            Self::Loop => "The domain's mail servers lead back to this host",
            Self::Later(why) => why,
        })
    }
}

/// The hosts that take a domain's mail, best first, in random order within a preference. `own` is true for a name and
/// addresses of this host; such a host is removed together with those of equal or lower preference (RFC 5321 §5.1). A
/// domain may be an address literal.
///
/// # Errors
/// Why there is no such host.
pub fn exchangers(
    resolver: &Resolver,
    domain: &str,
    own: &dyn Fn(&str, &[IpAddr]) -> bool,
) -> Result<Vec<Exchanger>, Unroutable> {
    if let Some(address) = literal(domain) {
        let host = address.to_string();
        let addresses = vec![address];
        return if own(&host, &addresses) {
            Err(Unroutable::Loop)
        } else {
            Ok(vec![Exchanger { host, addresses }])
        };
    }
    let mut hosts = match resolver.mx(domain) {
        Ok(hosts) if hosts.iter().all(|mx| mx.host.is_empty()) => return Err(Unroutable::NullMx),
        Ok(hosts) => hosts,
        // RFC 5321 §5.1: without MX records the domain itself is the exchanger.
        Err(Error::NoData) => vec![Mx {
            preference: 0,
            host: to_alabel(domain).ok_or(Unroutable::NoSuchDomain)?,
        }],
        Err(Error::NoSuchName) => return Err(Unroutable::NoSuchDomain),
        Err(Error::Temporary(why)) => return Err(Unroutable::Later(why)),
    };
    hosts.retain(|mx| !mx.host.is_empty());
    shuffle(&mut hosts);
    hosts.truncate(MAX_EXCHANGERS);
    with_addresses(resolver, hosts, own, Instant::now() + LOOK_UPS)
}

fn with_addresses(
    resolver: &Resolver,
    hosts: Vec<Mx>,
    own: &dyn Fn(&str, &[IpAddr]) -> bool,
    end: Instant,
) -> Result<Vec<Exchanger>, Unroutable> {
    let mut found: Vec<(u16, Exchanger)> = Vec::new();
    let mut trouble = Unroutable::NoSuchDomain;
    for Mx { preference, host } in hosts {
        // Names of exchangers are whole.
        let addresses = resolver.addresses(&format!("{host}."));
        // This host may be known by its name alone.
        let is_own = own(&host, addresses.as_deref().unwrap_or_default());
        match addresses {
            _ if is_own => {
                found.retain(|(known, _)| *known < preference);
                // A better host whose look-up failed for now may be the right one.
                if !matches!(trouble, Unroutable::Later(_)) {
                    trouble = Unroutable::Loop;
                }
                break;
            }
            Ok(addresses) => {
                let addresses = tried(addresses);
                found.push((preference, Exchanger { host, addresses }));
            }
            Err(Error::NoSuchName | Error::NoData) => {}
            Err(Error::Temporary(why)) => trouble = Unroutable::Later(why),
        }
        if end <= Instant::now() {
            // Nothing is known about the others.
            trouble = Unroutable::Later("looking up its mail servers takes too long".to_owned());
            break;
        }
    }
    if found.is_empty() {
        return Err(trouble);
    }
    Ok(found.into_iter().map(|(_, exchanger)| exchanger).collect())
}

/// The addresses that are tried. Half of them are of IPv4 if there are as many, for hosts that do not have the other.
fn tried(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut tried, mut four): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.into_iter().partition(IpAddr::is_ipv6);
    tried.truncate(MAX_ADDRESSES - four.len().min(MAX_ADDRESSES / 2));
    tried.append(&mut four);
    tried.truncate(MAX_ADDRESSES);
    tried
}

/// Sorts by preference, at random within one.
fn shuffle(hosts: &mut Vec<Mx>) {
    let chance = RandomState::new();
    let mut sorted = Vec::with_capacity(hosts.len());
    for mx in hosts.drain(..) {
        let key = (mx.preference, chance.hash_one(&mx.host));
        // There are few, and a sort of the standard library would be larger.
        let place = sorted.partition_point(|(other, _)| *other <= key);
        sorted.insert(place, (key, mx));
    }
    hosts.extend(sorted.into_iter().map(|(_, mx)| mx));
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn literal(domain: &str) -> Option<IpAddr> {
    let text = domain.strip_prefix('[')?.strip_suffix(']')?;
    match text.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
            address.parse().ok().map(IpAddr::V6)
        }
        _ => text.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::net::dns::Servers;
    use crate::testing::Scratch;

    #[test]
    fn connections_and_their_deadlines() {
        let soon = || Instant::now() + Duration::from_millis(200);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(tcp.local_addr().unwrap());
        assert!(connect(&address, soon()).is_ok());
        assert!(connect(&address, Instant::now()).is_err_and(|e| e.kind() == ErrorKind::TimedOut));
        let dir = Scratch::new();
        let path = dir.0.join("socket");
        let address = Address::Unix(path.clone());
        assert!(connect(&address, soon()).is_err_and(|e| e.kind() == ErrorKind::NotFound));
        let unix = UnixListener::bind(&path).unwrap();
        // Nothing is accepted, so the backlog fills up and the deadline takes effect.
        let mut taken = Vec::new();
        let full = loop {
            match connect(&address, soon()) {
                Ok(socket) => taken.push(socket),
                Err(e) => break e,
            }
            assert!(taken.len() < 10_000);
        };
        assert_eq!(full.kind(), ErrorKind::TimedOut);
        drop(unix);
        let long = Address::Unix("/x".repeat(200).into());
        assert!(connect(&long, soon()).is_err());
    }

    /// Mail is not returned before all its exchangers were looked up.
    #[test]
    fn slow_look_ups() {
        let resolver = Resolver::new(Path::new("/nonexistent"), Servers::default());
        let found = |end| {
            let gone = [1, 2].map(|preference| Mx {
                preference,
                host: "?".to_owned(),
            });
            with_addresses(&resolver, gone.into(), &|_, _| false, end)
        };
        let later = Instant::now() + LOOK_UPS;
        assert_eq!(found(later), Err(Unroutable::NoSuchDomain));
        let over = found(Instant::now());
        assert!(matches!(over, Err(Unroutable::Later(_))), "{over:?}");
    }

    /// A host without IPv6 reaches an exchanger with many such addresses, too.
    #[test]
    fn addresses_of_both_families_are_tried() {
        let six = (0..=MAX_ADDRESSES).map(|n| format!("2001:db8::{n} mx.test\n"));
        let dir = Scratch::new();
        let hosts = dir.file("hosts", six.collect::<String>() + "192.0.2.1 mx.test\n");
        let resolver = Resolver::new(&hosts, Servers::default());
        let mx = Mx {
            preference: 1,
            host: "mx.test".to_owned(),
        };
        let end = Instant::now() + LOOK_UPS;
        let found = with_addresses(&resolver, vec![mx], &|_, _| false, end).unwrap();
        let addresses = &found.first().unwrap().addresses;
        let four = addresses.iter().filter(|ip| ip.is_ipv4()).count();
        assert_eq!((addresses.len(), four), (MAX_ADDRESSES, 1));
    }

    #[test]
    fn own_addresses() {
        for own in [
            "127.0.0.1",
            "::1",
            "127.9.9.9",
            "0.0.0.0",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn literals() {
        let ip = |text: &str| text.parse().ok();
        assert_eq!(literal("[192.0.2.1]"), ip("192.0.2.1"));
        assert_eq!(literal("[ipv6:2001:db8::1]"), ip("2001:db8::1"));
        for other in [
            "192.0.2.1",
            "[192.0.2]",
            "[::1]",
            "[]",
            "[x",
            "[\u{e9}\u{e9}\u{e9}]",
            "[IPv6:192.0.2.1]",
        ] {
            assert_eq!(literal(other), None, "{other}");
        }
    }
}
