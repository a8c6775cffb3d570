//! Listeners: binding them, and the accept loop. The loop survives every error of `accept` and never waits for a
//! client. `url` parses the URLs of listeners.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::sys::socket::{bind as bind_socket, listen, setsockopt, socket as new_socket};

use super::names;
use super::socket::Socket;
use super::url::{BindTo, ListenUrl, Scheme};
use crate::sys::{ids, inherited};
use crate::values::Networks;
use crate::warnings::warn;

/// The backlog of each listener.
const BACKLOG: i32 = 1_024;
/// Connections accepted from one listener before the others get their turn.
const BURST: usize = 64;
/// The pause when there is no descriptor or memory for a connection.
const SCARCE: Duration = Duration::from_millis(100);
const WAKE: Token = Token(usize::MAX);

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address; IPv4 mapped into IPv6 is IPv4 (F61).
    Tcp(SocketAddr),
    /// A process of this host, with its credentials if the system tells them.
    Unix(Option<PeerCredentials>),
}

impl Peer {
    /// True if the networks contain the address, or include Unix sockets.
    pub fn is_in(&self, networks: &Networks) -> bool {
        match self {
            Self::Tcp(address) => networks.contains(address.ip()),
            Self::Unix(_) => networks.unix,
        }
    }
}

/// The process at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// An accepted connection.
pub struct Accepted {
    /// The socket, blocking.
    pub socket: Socket,
    /// The peer.
    pub peer: Peer,
    /// True if it took the last descriptor, so it must be refused.
    pub overflow: bool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removes the file when dropped")] Option<SocketFile>,
    ),
}

/// The file of a Unix socket, removed at the end unless another server has taken its place.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

struct Bound {
    listener: Listener,
    number: usize,
    ready: bool,
    _watched: Watched,
}

/// The listener's second handle, which mio watches.
enum Watched {
    Tcp(#[expect(dead_code, reason = "kept open")] mio::net::TcpListener),
    Unix(#[expect(dead_code, reason = "kept open")] mio::net::UnixListener),
}

/// All listeners of a server.
pub struct Listeners {
    poll: Poll,
    events: Events,
    bound: Vec<Bound>,
    /// A spare descriptor, closed for a moment to accept a connection when there is no other (F11).
    spare: Option<File>,
}

impl Listeners {
    /// No listeners yet.
    ///
    /// # Errors
    /// An error of the system.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(64),
            bound: Vec::new(),
            spare: File::open("/dev/null").ok(),
        })
    }

    /// Wakes [`Self::wait`] from another thread.
    ///
    /// # Errors
    /// An error of the system.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKE)
    }

    /// Binds a listener; `number` is passed on with each of its connections. Returns the bound addresses as URLs.
    ///
    /// # Errors
    /// The listener that could not be bound, and the reason.
    pub fn add(&mut self, url: &ListenUrl, number: usize) -> Result<Vec<String>, String> {
        self.watch(url, number, bind(url)?)
    }

    /// Adds a listener that was bound elsewhere.
    ///
    /// # Errors
    /// An error of the system.
    pub fn add_inherited(
        &mut self,
        url: &ListenUrl,
        number: usize,
        socket: inherited::InheritedSocket,
    ) -> Result<Vec<String>, String> {
        let listener = match socket {
            inherited::InheritedSocket::Tcp(tcp) => Listener::Tcp(tcp),
            inherited::InheritedSocket::Unix(unix) => Listener::Unix(unix, None),
        };
        self.watch(url, number, vec![listener])
    }

    fn watch(
        &mut self,
        url: &ListenUrl,
        number: usize,
        listeners: Vec<Listener>,
    ) -> Result<Vec<String>, String> {
        let fault = |e: io::Error| format!("{url}: {e}");
        let mut names = Vec::new();
        for listener in listeners {
            names.push(match &listener {
                Listener::Tcp(tcp) => {
                    let address = tcp.local_addr().map_err(fault)?;
                    format!("{}://{address}{}", url.scheme.name(), url.query())
                }
                Listener::Unix(..) => url.to_string(),
            });
            let token = Token(self.bound.len());
            let watched = watch(&listener, &self.poll, token).map_err(fault)?;
            self.bound.push(Bound {
                listener,
                number,
                ready: false,
                _watched: watched,
            });
        }
        Ok(names)
    }

    /// Waits, at most for `pause` if given, and passes on new connections.
    ///
    /// # Errors
    /// An error of poll.
    pub fn wait(
        &mut self,
        pause: Option<Duration>,
        take: &mut dyn FnMut(usize, Accepted),
    ) -> io::Result<()> {
        let more = self.bound.iter().any(|bound| bound.ready);
        let pause = if more { Some(Duration::ZERO) } else { pause };
        match self.poll.poll(&mut self.events, pause) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        for event in &self.events {
            if let Some(bound) = self.bound.get_mut(event.token().0) {
                bound.ready = true;
            }
        }
        for bound in self.bound.iter_mut().filter(|bound| bound.ready) {
            bound.ready = accept(&bound.listener, bound.number, &mut self.spare, take);
        }
        Ok(())
    }
}

/// Accepts connections until none is pending (false) or another listener's turn has come.
fn accept(
    listener: &Listener,
    number: usize,
    spare: &mut Option<File>,
    take: &mut dyn FnMut(usize, Accepted),
) -> bool {
    let (mut scarce, mut failed) = (false, 0);
    for _ in 0..BURST {
        match listener.accept() {
            Ok((socket, peer)) => take(number, accepted(socket, peer, false)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) => match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                Errno::EMFILE | Errno::ENFILE if spare.take().is_some() => {
                    // One line for a burst is enough.
                    if !std::mem::replace(&mut scarce, true) {
                        log::warn!("accept: {e}");
                    }
                    let taken = listener.accept();
                    let none_left = taken.is_err();
                    if let Ok((socket, peer)) = taken {
                        take(number, accepted(socket, peer, true));
                    }
                    *spare = File::open("/dev/null").ok();
                    if none_left {
                        std::thread::sleep(SCARCE);
                        return true;
                    }
                }
                Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
                    log::warn!("accept: {e}");
                    // Without a spare descriptor and a pause the loop would spin.
                    std::thread::sleep(SCARCE);
                    *spare = File::open("/dev/null").ok();
                    return true;
                }
                // The client has already gone, or the network failed.
                _ => {
                    log::debug!("accept: {e}");
                    failed += 1;
                }
            },
        }
    }
    if failed == BURST {
        // The socket or the call fails for good.
        warn(&format!("accept: {failed} errors in a row"));
        std::thread::sleep(SCARCE);
    }
    true
}

const fn accepted(socket: Socket, peer: Peer, overflow: bool) -> Accepted {
    Accepted {
        socket,
        peer,
        overflow,
    }
}

impl Listener {
    fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(tcp) => {
                let (socket, peer) = tcp.accept()?;
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Ok((Socket::Tcp(socket), Peer::Tcp(peer)))
            }
            Self::Unix(unix, _) => {
                let (socket, _) = unix.accept()?;
                let peer = Peer::Unix(credentials(&socket));
                Ok((Socket::Unix(socket), peer))
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials(socket: &UnixStream) -> Option<PeerCredentials> {
    let found = nix::sys::socket::getsockopt(socket, sockopt::PeerCredentials).ok()?;
    Some(PeerCredentials {
        pid: found.pid(),
        uid: found.uid(),
        gid: found.gid(),
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn credentials(_: &UnixStream) -> Option<PeerCredentials> {
    None
}

fn watch(listener: &Listener, poll: &Poll, token: Token) -> io::Result<Watched> {
    let registry = poll.registry();
    match listener {
        Listener::Tcp(tcp) => {
            tcp.set_nonblocking(true)?;
            let mut watched = mio::net::TcpListener::from_std(tcp.try_clone()?);
            registry.register(&mut watched, token, Interest::READABLE)?;
            Ok(Watched::Tcp(watched))
        }
        Listener::Unix(unix, _) => {
            unix.set_nonblocking(true)?;
            let mut watched = mio::net::UnixListener::from_std(unix.try_clone()?);
            registry.register(&mut watched, token, Interest::READABLE)?;
            Ok(Watched::Unix(watched))
        }
    }
}

fn bind(url: &ListenUrl) -> Result<Vec<Listener>, String> {
    match &url.at {
        BindTo::Tcp { host, port } => {
            // Metrics are only public if a host is given.
            let all: [IpAddr; 2] = match url.scheme {
                Scheme::Metrics => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                _ => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            };
            let addresses = addresses(host.as_deref(), &all, *port);
            let addresses = addresses.map_err(|e| format!("{url}: {e}"))?;
            let mut bound = Vec::new();
            let mut missing = None;
            for address in addresses {
                match bind_tcp(address) {
                    Ok(listener) => bound.push(Listener::Tcp(listener)),
                    // The host lacks one of the families (F61).
                    Err(e @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)) => {
                        missing = Some(format!("{url}: {address}: {}", e.desc()));
                    }
                    Err(e) => return Err(format!("{url}: {address}: {}", e.desc())),
                }
            }
            if bound.is_empty() {
                return Err(missing.unwrap_or_else(|| format!("{url}: no address to bind")));
            }
            Ok(bound)
        }
        BindTo::Unix {
            path,
            mode,
            user,
            group,
        } => {
            let owner = (user.as_deref(), group.as_deref());
            let bound = bind_unix(path, *mode, owner).map_err(|e| format!("{url}: {e}"))?;
            Ok(vec![bound])
        }
        BindTo::Inherited(_) => Err(format!("{url}: there is no such socket")),
    }
}

/// The addresses of a host, or `all` without one.
fn addresses(host: Option<&str>, all: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = match host {
        Some(host) => names::addresses(host)?,
        None => all.to_vec(),
    };
    let mut addresses = Vec::new();
    for address in found {
        let address = SocketAddr::new(address, port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// An IPv6 listener does not accept IPv4, which has its own listener, whatever the system's default. Set once on the
/// listener; accepted sockets inherit it.
fn bind_tcp(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let socket: OwnedFd = new_socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    bind_socket(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(address),
    )?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}

/// Binds under a temporary name, sets mode and owner, then renames, so that nobody can connect too early. The socket of
/// a dead server is replaced; that of a live one, or any other file, is not.
fn bind_unix(
    path: &Path,
    mode: u32,
    (user, group): (Option<&str>, Option<&str>),
) -> Result<Listener, String> {
    let fault = |e: io::Error| e.to_string();
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err("there is another file, not a socket".to_owned());
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            Ok(_) => return Err("another server listens there".to_owned()),
            Err(e) => return Err(fault(e)),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(fault(e)),
    }
    let uid = user.map(ids::user_id).transpose()?;
    let gid = group.map(ids::group_id).transpose()?;
    let name = path
        .file_name()
        .ok_or("a path that ends in a name is needed")?;
    let short = name.to_string_lossy().chars().take(8).collect::<String>();
    let own = path.with_file_name(format!(".{short}.{}", std::process::id()));
    let _ = std::fs::remove_file(&own);
    let listener = UnixListener::bind(&own).map_err(|e| match e.kind() {
        ErrorKind::NotFound => "its directory does not exist".to_owned(),
        _ => fault(e),
    })?;
    let placed = std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode))
        .and_then(|()| {
            let given = std::os::unix::fs::chown(&own, uid, gid);
            given
                .map_err(|e| io::Error::other(format!("cannot give it to its user and group: {e}")))
        })
        .and_then(|()| Ok(listen(&listener.as_fd(), Backlog::new(BACKLOG)?)?))
        .and_then(|()| std::fs::symlink_metadata(&own))
        .and_then(|meta| std::fs::rename(&own, path).map(|()| meta.ino()));
    match placed {
        Ok(inode) => {
            let path = path.to_owned();
            Ok(Listener::Unix(listener, Some(SocketFile { path, inode })))
        }
        Err(e) => {
            let _ = std::fs::remove_file(&own);
            Err(fault(e))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use nix::sys::socket::{Shutdown, shutdown};
    use std::os::fd::AsRawFd as _;

    /// A socket that another process has shut down is always ready, and always an error.
    #[test]
    fn an_error_that_stays_does_not_spin() {
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        shutdown(tcp.as_raw_fd(), Shutdown::Both).unwrap();
        let listener = Listener::Tcp(tcp);
        let begun = std::time::Instant::now();
        let mut take = |_, _| unreachable!("nobody connected");
        assert!(accept(&listener, 0, &mut None, &mut take));
        assert!(begun.elapsed() >= SCARCE);
    }
}
