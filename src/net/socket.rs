//! A connected socket, TCP or Unix, with the few calls that are needed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

/// Octets dropped at a time.
const DROPPED: usize = 8 * 1024;

/// The time until a deadline.
///
/// # Errors
/// `TimedOut` if it has passed.
pub(super) fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP
    Tcp(TcpStream),
    /// A Unix socket
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => Read::read(&mut &*socket, buffer),
            Self::Unix(socket) => Read::read(&mut &*socket, buffer),
        }
    }

    /// Writes as much as the system accepts without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if it accepts nothing, or another error of the socket.
    pub fn write_now(&self, octets: &[u8]) -> io::Result<usize> {
        Ok(send(self.descriptor(), octets, MsgFlags::MSG_DONTWAIT)?)
    }

    pub(super) fn write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => Write::write(&mut &*socket, octets),
            Self::Unix(socket) => Write::write(&mut &*socket, octets),
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }

    pub(super) fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_read_timeout(Some(wait)),
            Self::Unix(socket) => socket.set_read_timeout(Some(wait)),
        }
    }

    pub(super) fn set_write_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_write_timeout(Some(wait)),
            Self::Unix(socket) => socket.set_write_timeout(Some(wait)),
        }
    }

    /// Reads and drops pending input, up to `most` octets, without waiting.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer has closed its side, or another error of the socket.
    pub fn drop_input(&self, most: usize) -> io::Result<usize> {
        let mut dropped = 0;
        let mut room = [0; DROPPED];
        while dropped < most {
            match recv(self.descriptor(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(octets) => dropped += octets,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(dropped)
    }

    /// True if there is input to read now.
    pub(super) fn has_input(&self) -> bool {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        recv(self.descriptor(), &mut [0], flags).is_ok_and(|octets| octets > 0)
    }

    /// Shuts down the writing side, then drops what the peer still sends, up to `most` octets and until `deadline`:
    /// closing with unread input resets the connection, and the peer may lose the last reply.
    pub fn drain(&self, most: usize, deadline: Instant) {
        self.shutdown(Shutdown::Write);
        let mut left = most;
        let mut room = [0; DROPPED];
        while left > 0 {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                // Input that came while this thread waited for a processor counts, too.
                let _ = self.drop_input(left);
                return;
            }
            if self.set_read_timeout(wait).is_err() {
                return;
            }
            match self.read(&mut room) {
                Ok(0) | Err(_) => return,
                Ok(octets) => left = left.saturating_sub(octets),
            }
        }
    }

    /// A second handle of the same socket.
    ///
    /// # Errors
    /// An error of the system.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// True if the connection is open and has no pending input.
    pub fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.descriptor(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// Ends one or both directions; a closed socket is not an error.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        };
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Socket::read(self, buffer)
    }
}

impl Write for &Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Socket::write(self, octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
