//! A blocking socket, clear or in TLS, with its two buffers. Output is flushed before input is
//! waited for, so that a batch of replies leaves in one write and no reply can be forgotten.
//! The step to TLS consumes the stream: the buffer that could hold injected plaintext is gone
//! with it.

use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Octets of the input buffer for a client that sends a command and waits, for one that sends
/// more at once, and while a message flows.
const TINY: usize = 512;
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

    fn write_vectored(&self, octets: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => Write::write_vectored(&mut &*socket, octets),
            Self::Unix(socket) => Write::write_vectored(&mut &*socket, octets),
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
pub struct Stream {
    wire: Wire,
    tls: Option<Box<ServerConnection>>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
}

impl Stream {
    /// A stream in the clear, with empty buffers.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self {
            wire: Wire::new(socket),
            tls: None,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
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

    /// Makes the buffers fit a message, or commands again.
    pub fn body_mode(&mut self, on: bool) {
        let size = if on { LARGE } else { TINY };
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.input.resize(size.max(self.end), 0);
        if !on {
            self.input.shrink_to_fit();
        }
        self.wire
            .ahead(if on && self.tls.is_some() { LARGE } else { 0 });
    }

    /// Sends what is in the output buffer, by `deadline`.
    ///
    /// # Errors
    /// `TimedOut` for a client that does not read, else what the socket says.
    pub fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.output.get(sent..).filter(|rest| !rest.is_empty()) {
            self.wire.deadline = deadline;
            let octets = match &mut self.tls {
                None => self.wire.write(rest)?,
                Some(tls) => {
                    let octets = tls.writer().write(rest)?;
                    send_records(tls, &mut self.wire)?;
                    octets
                }
            };
            if octets == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            sent += octets;
        }
        self.output.clear();
        Ok(())
    }

    /// Flushes, then reads once; 0 is the end of the stream. In TLS that is a close_notify:
    /// without one the end is an error.
    ///
    /// # Errors
    /// `TimedOut` past the deadline, else what the socket says.
    pub fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        self.flush(deadline)?;
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A line of AUTH is longer than the buffer that all other commands fit in.
        if self.end == self.input.len() {
            let more = if self.end == 0 { TINY } else { SMALL };
            self.input.resize(self.end + more, 0);
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        self.wire.deadline = deadline;
        let octets = match &mut self.tls {
            None => self.wire.read(room)?,
            Some(tls) => read_plaintext(tls, &mut self.wire, room)?,
        };
        self.end += octets;
        // There was more than room: a client that pipelines.
        if self.end == self.input.len() && self.end < SMALL {
            self.input.resize(SMALL, 0);
        }
        Ok(octets)
    }

    /// Makes TLS of a clear stream, by `deadline`. The old stream is consumed, and with it any
    /// plaintext that it might still hold (RFC 3207 §4.2).
    ///
    /// # Errors
    /// `InvalidInput` where plaintext was waiting, else why the handshake failed.
    #[inline(never)]
    pub fn upgrade(mut self, config: Arc<ServerConfig>, deadline: Instant) -> io::Result<Self> {
        self.flush(deadline)?;
        if !self.input().is_empty() || self.tls.is_some() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut wire = self.wire;
        let mut tls = Box::new(ServerConnection::new(config).map_err(io::Error::other)?);
        wire.deadline = deadline;
        while tls.is_handshaking() {
            if tls.wants_write() {
                send_records(&mut tls, &mut wire)?;
            } else if read_records(&mut tls, &mut wire)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        send_records(&mut tls, &mut wire)?;
        Ok(Self {
            wire,
            tls: Some(tls),
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
        })
    }

    /// The `tls-exporter` value of this connection (RFC 9266 §2). Not for TLS 1.2, where it
    /// would take an extended master secret that one cannot ask for afterwards.
    pub fn exporter(&self) -> Option<Vec<u8>> {
        let tls = self.tls.as_ref()?;
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let label = b"EXPORTER-Channel-Binding";
        tls.export_keying_material(vec![0; 32], label, Some(b""))
            .ok()
    }

    /// Version and cipher suite, where this is TLS.
    pub fn cipher(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let suite = tls.negotiated_cipher_suite()?.suite();
        Some(format!("{:?}:{suite:?}", tls.protocol_version()?))
    }

    /// Sends what is left, says good-bye in TLS, and ends the connection. A client that is
    /// gone already is no news.
    pub fn close(mut self, deadline: Instant) {
        if self.flush(deadline).is_ok()
            && let Some(tls) = &mut self.tls
        {
            tls.send_close_notify();
            let _ = send_records(tls, &mut self.wire);
        }
        self.wire.socket.shutdown(Shutdown::Both);
    }
}

/// Decrypts what came, and reads on until there is something.
fn read_plaintext(
    tls: &mut ServerConnection,
    wire: &mut Wire,
    room: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(room) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        read_records(tls, wire)?;
    }
}

/// Reads from the socket once; what TLS itself wants to answer goes out. 0 is the end.
fn read_records(tls: &mut ServerConnection, wire: &mut Wire) -> io::Result<usize> {
    let octets = tls.read_tls(wire)?;
    let state = tls.process_new_packets();
    if tls.wants_write() {
        let sent = send_records(tls, wire);
        // The alert is a courtesy: what was wrong is the error that counts.
        if state.is_ok() {
            sent?;
        }
    }
    state.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    Ok(octets)
}

fn send_records(tls: &mut ServerConnection, wire: &mut Wire) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(wire)? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// The socket with the deadline of what is being done, as reader and writer.
struct Wire {
    socket: Arc<Socket>,
    deadline: Instant,
    /// The timeout that the socket has now.
    wait: Duration,
    /// Octets read ahead: TLS takes them in pieces smaller than a read of a message should be.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            deadline: Instant::now(),
            wait: Duration::ZERO,
            ahead: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Reads ahead by so many octets from now on; what was read already stays.
    fn ahead(&mut self, octets: usize) {
        if self.start == self.end {
            self.ahead = vec![0; octets];
        }
    }

    /// Sets the socket's timeout to what is left, in whole seconds rounded up, so that the
    /// ordinary command costs no system call for it.
    fn set_wait(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
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

    /// Does `call` until it is through, or the deadline is.
    fn persist(&mut self, mut call: impl FnMut(&Socket) -> io::Result<usize>) -> io::Result<usize> {
        self.set_wait()?;
        loop {
            match call(&self.socket) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                other => return other,
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.persist(|socket| socket.read(room));
        }
        if self.start == self.end {
            let mut ahead = std::mem::take(&mut self.ahead);
            let read = self.persist(|socket| socket.read(&mut ahead));
            self.ahead = ahead;
            (self.start, self.end) = (0, read?);
        }
        let from = self.ahead.get(self.start..self.end).unwrap_or_default();
        let octets = from.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..octets), from.get(..octets)) {
            to.copy_from_slice(from);
        }
        self.start += octets;
        Ok(octets)
    }
}

impl Write for Wire {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.persist(|socket| socket.write(octets))
    }

    fn write_vectored(&mut self, octets: &[IoSlice<'_>]) -> io::Result<usize> {
        self.persist(|socket| socket.write_vectored(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
