//! Sockets that a service manager has bound and passes on (sd_listen_fds(3)): LISTEN_FDS, LISTEN_PID and
//! LISTEN_FDNAMES.

use std::env;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

use crate::encoding::number;
use crate::failure::Failure;

/// The number of the first descriptor.
const FIRST: usize = 3;

/// A listening socket.
#[derive(Debug)]
pub enum InheritedSocket {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A Unix socket; its file belongs to the manager.
    Unix(UnixListener),
}

impl InheritedSocket {
    /// The part of its URL after the scheme and the colon.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Tcp(tcp) => Some(format!("//{}", tcp.local_addr().ok()?)),
            Self::Unix(unix) => {
                let address = unix.local_addr().ok()?;
                Some(address.as_pathname()?.to_str()?.to_owned())
            }
        }
    }
}

/// Takes the sockets that were passed to this process, and their names (`FileDescriptorName=`), which may be empty.
///
/// # Errors
/// LISTEN_FDS is not a number, or a descriptor does not listen: exit status 71.
pub fn take() -> Result<(Vec<String>, Vec<InheritedSocket>), Failure> {
    let get = |name: &str| env::var(name).ok();
    let own = std::process::id().to_string();
    let Some(count) = count(get("LISTEN_PID"), get("LISTEN_FDS"), &own)? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let given = get("LISTEN_FDNAMES").unwrap_or_default();
    let given = given.split(':').map(str::to_owned);
    let names = given.chain(std::iter::repeat(String::new()));
    let mut sockets = ListenFd::from_env();
    let taken: Result<Vec<InheritedSocket>, Failure> =
        (0..count).map(|at| socket(&mut sockets, at)).collect();
    let taken = taken?;
    Ok((names.take(taken.len()).collect(), taken))
}

/// The number of sockets for the process `own`.
fn count(pid: Option<String>, fds: Option<String>, own: &str) -> Result<Option<usize>, Failure> {
    let Some(fds) = fds.filter(|_| pid.as_deref() == Some(own)) else {
        return Ok(None);
    };
    let count = number(&fds);
    let fault = || Failure::System(format!("LISTEN_FDS: '{fds}' is not a number"));
    count.map(Some).ok_or_else(fault)
}

fn socket(sockets: &mut ListenFd, at: usize) -> Result<InheritedSocket, Failure> {
    let fault = |reason: &str| {
        let number = at.saturating_add(FIRST);
        Failure::System(format!("LISTEN_FDS: descriptor {number}: {reason}"))
    };
    // A descriptor of the wrong kind is not taken, so the other kind can be tried.
    let found = match sockets.take_tcp_listener(at) {
        Ok(tcp) => tcp.map(InheritedSocket::Tcp),
        Err(_) => sockets
            .take_unix_listener(at)
            .map_err(|_| fault("not a stream socket"))?
            .map(InheritedSocket::Unix),
    };
    let socket = found.ok_or_else(|| fault("not there"))?;
    let listens = match &socket {
        InheritedSocket::Tcp(tcp) => getsockopt(&tcp.as_fd(), sockopt::AcceptConn),
        InheritedSocket::Unix(unix) => getsockopt(&unix.as_fd(), sockopt::AcceptConn),
    };
    match listens {
        Ok(true) => Ok(socket),
        _ => Err(fault("does not listen (Accept=yes is not supported)")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn both_kinds_have_a_place() {
        let dir = Scratch::new();
        let path = dir.0.join("own");
        let unix = InheritedSocket::Unix(UnixListener::bind(&path).unwrap());
        assert_eq!(unix.place(), Some(path.display().to_string()));
        let tcp = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
        let tcp = tcp.unwrap();
        let place = format!("//{}", tcp.local_addr().unwrap());
        assert_eq!(InheritedSocket::Tcp(tcp).place(), Some(place));
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(count(text("7"), text("2"), "7"), Ok(Some(2)));
        assert_eq!(count(text("8"), text("2"), "7"), Ok(None));
        assert_eq!(count(None, text("2"), "7"), Ok(None));
        assert_eq!(count(text("7"), None, "7"), Ok(None));
        assert!(count(text("7"), text("two"), "7").is_err_and(|e| e.status() == 71));
    }
}
