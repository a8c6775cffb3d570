//! A blocking socket with its two buffers. Output is flushed before input is waited for, so
//! that a batch of replies leaves in one write and no reply can be forgotten.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of the input buffer while commands flow, and while a message does.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP
    Tcp(TcpStream),
    /// A Unix socket
    Unix(UnixStream),
}

impl Socket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => Read::read(&mut &*socket, buffer),
            Self::Unix(socket) => Read::read(&mut &*socket, buffer),
        }
    }

    /// Writes once.
    ///
    /// # Errors
    /// What the socket says.
    pub fn write(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => Write::write(&mut &*socket, octets),
            Self::Unix(socket) => Write::write(&mut &*socket, octets),
        }
    }

    fn set_timeouts(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s
                .set_read_timeout(Some(wait))
                .and_then(|()| s.set_write_timeout(Some(wait))),
            Self::Unix(s) => s
                .set_read_timeout(Some(wait))
                .and_then(|()| s.set_write_timeout(Some(wait))),
        }
    }

    /// Ends one or both directions; a socket that is gone already is no news.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        };
    }
}

/// A socket and its buffers.
#[derive(Debug)]
pub struct Stream {
    socket: Arc<Socket>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    wait: Duration,
}

impl Stream {
    /// A stream with empty buffers.
    pub const fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
            wait: Duration::ZERO,
        }
    }

    /// Where replies are put.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Octets that came and are not consumed.
    pub fn input(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes octets off the input.
    pub fn consume(&mut self, octets: usize) {
        self.start = self.end.min(self.start.saturating_add(octets));
    }

    /// Makes the input buffer fit a message, or commands again.
    pub fn body_mode(&mut self, on: bool) {
        let kept = self.input().to_vec();
        self.start = 0;
        self.end = kept.len();
        self.input = kept;
        self.input
            .resize(if on { LARGE } else { SMALL }.max(self.end), 0);
    }

    /// Sends what is in the output buffer, by `deadline`.
    ///
    /// # Errors
    /// `TimedOut` for a client that does not read, else what the socket says.
    pub fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            let now = self.socket.write(rest);
            match now {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(octets) => sent += octets,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(e) => return Err(e),
            }
            if sent < self.output.len() {
                self.set_wait(deadline)?;
            }
        }
        self.output.clear();
        Ok(())
    }

    /// Flushes, then reads once; 0 is the end of the stream.
    ///
    /// # Errors
    /// `TimedOut` past the deadline, else what the socket says.
    pub fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        self.set_wait(deadline)?;
        self.flush(deadline)?;
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.input.len() < SMALL {
            self.input.resize(SMALL, 0);
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.socket.read(room) {
                Ok(octets) => {
                    self.end += octets;
                    return Ok(octets);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sets the socket's timeout to what is left, in whole seconds rounded up, so that the
    /// ordinary command costs no system call for it.
    fn set_wait(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let wait = Duration::from_secs(left.as_secs() + 1);
        if wait != self.wait {
            self.socket.set_timeouts(wait)?;
            self.wait = wait;
        }
        Ok(())
    }
}
