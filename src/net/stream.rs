//! A blocking socket, plain or with TLS, and its two buffers. Output is flushed before waiting for input, so that a
//! batch of replies is sent in one write and none is forgotten. Upgrading to TLS consumes the stream and with it a
//! buffer that could hold injected plaintext.
//!
//! The system calls of a message here are a `recvfrom` and a `sendto` each time the client waits for a reply: four of
//! each if it waits after MAIL, RCPT, DATA and the message, two of each if it pipelines the envelope (one, with BDAT).
//! A read timeout is only set if it changes, and a write timeout only if a write has to wait. With the seven calls of
//! the delivery (see `deliver`) a message on a reused connection takes 15 calls. Its line in the log is one more, and
//! so is the check for the mailbox if mailboxes are directories (see `maillog` and `directory`).
//!
//! A new connection adds 11 or 12: `accept4`, mostly a second one that finds nothing and an `epoll_wait` (mio reports
//! new connections once), two `futex` to hand it to a thread and to wait for the next, `setsockopt` for the read
//! timeout, `sendto` for greeting, EHLO and QUIT, `recvfrom` for the latter two, and `close`.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{Connection, ProtocolVersion};

use super::socket::{Socket, time_left};

/// Sizes of the input buffer: for single commands, for pipelined ones, for the start of a message, and for the rest of
/// a large one. Clearing a large buffer costs as much as reading a small message, so the third size is kept for the
/// next message.
const TINY: usize = 512;
const SMALL: usize = 4 * 1024;
const MEDIUM: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;

/// Maximum octets that are dropped before a close.
pub const UNREAD: usize = 1024 * 1024;

/// Initial size of the output buffer: the reply to EHLO fits.
const REPLIES: usize = 320;

/// A socket and its buffers.
pub struct Stream {
    wire: Wire,
    tls: Option<Box<Connection>>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    /// True while content is read.
    body: bool,
}

impl Stream {
    /// A plaintext stream with empty buffers.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self {
            wire: Wire::new(socket),
            tls: None,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::with_capacity(REPLIES),
            body: false,
        }
    }

    /// The buffer for replies.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Input that was not consumed yet. Were the range ever wrong, the next [`Self::fill`] would be an error.
    pub fn input(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// Consumes input.
    pub fn consume(&mut self, octets: usize) {
        self.start = self.end.min(self.start.saturating_add(octets));
    }

    /// Returns buffered input to the wire, because it is the beginning of a TLS handshake.
    pub fn give_back(&mut self) {
        self.compact();
        self.input.truncate(self.end);
        (self.wire.start, self.wire.end) = (0, self.end);
        self.wire.ahead = std::mem::take(&mut self.input);
        self.end = 0;
    }

    /// Sizes the buffers for content, or for commands again.
    pub fn body_mode(&mut self, on: bool) {
        self.body = on;
        self.compact();
        self.input.resize(self.end.max(MEDIUM), 0);
        self.input.shrink_to_fit();
        self.wire
            .ahead(if on && self.tls.is_some() { MEDIUM } else { 0 });
    }

    /// Moves unconsumed input to the start of the buffer.
    fn compact(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Enlarges a buffer that a read has filled, because there will be more.
    fn grow(&mut self) {
        let size = if self.body { LARGE } else { SMALL };
        if self.end == self.input.len() && self.end < size {
            self.input.resize(size, 0);
            if self.body && self.tls.is_some() {
                self.wire.ahead(LARGE);
            }
        }
    }

    /// Sends the output buffer by `deadline`. After an error it has what was not sent.
    ///
    /// # Errors
    /// `TimedOut` if the client does not read, or another error of the socket.
    pub fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        self.wire.deadline = deadline;
        let mut sent = 0;
        let tls = self.tls.as_deref_mut();
        let flushed = send_all(&mut self.wire, tls, &self.output, &mut sent);
        self.output.drain(..sent.min(self.output.len()));
        flushed
    }

    /// Flushes, then reads once; 0 is the end of the stream. In TLS that is a close_notify:
    /// without one the end is an error.
    ///
    /// # Errors
    /// `TimedOut` past the deadline, or another error of the socket.
    pub fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        self.flush(deadline)?;
        let unread = self.input.get(self.start..self.end);
        unread.ok_or(ErrorKind::InvalidData)?;
        self.compact();
        // An AUTH line may not fit into the buffer for other commands.
        if self.end == self.input.len() {
            let more = if self.end == 0 { TINY } else { SMALL };
            self.input.resize(self.end + more, 0);
        }
        let room = self.input.get_mut(self.end..);
        let room = room.ok_or(ErrorKind::InvalidData)?;
        self.wire.deadline = deadline;
        let octets = match &mut self.tls {
            None => self.wire.read(room)?,
            Some(tls) => read_plaintext(tls, &mut self.wire, room)?,
        };
        self.end += octets;
        self.grow();
        Ok(octets)
    }

    /// True if [`Self::fill`] would read without waiting. An end of the stream is not looked for.
    ///
    /// # Errors
    /// `TimedOut` past the deadline, or another error of TLS or the socket.
    pub fn has_input(&mut self, deadline: Instant) -> io::Result<bool> {
        let socket = Arc::clone(&self.wire.socket);
        let Some(tls) = &mut self.tls else {
            return Ok(socket.has_input());
        };
        self.wire.deadline = deadline;
        loop {
            // Session tickets and parts of a record do not count.
            let state = tls.process_new_packets();
            let state = state.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
            if state.plaintext_bytes_to_read() > 0 {
                return Ok(true);
            }
            if !socket.has_input() || read_records(tls, &mut self.wire)? == 0 {
                return Ok(false);
            }
        }
    }

    /// Upgrades a plaintext stream to TLS, as server or as client, by `deadline`. The old stream is consumed, with any
    /// plaintext in it (RFC 3207 §4.2).
    ///
    /// # Errors
    /// `InvalidInput` if plaintext was buffered, or an error of the handshake.
    #[inline(never)]
    pub fn upgrade(mut self, tls: Connection, deadline: Instant) -> io::Result<Self> {
        self.flush(deadline)?;
        if !self.input().is_empty() || self.tls.is_some() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut wire = self.wire;
        let mut tls = Box::new(tls);
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
            output: Vec::with_capacity(REPLIES),
            body: false,
        })
    }

    /// The `tls-exporter` value of this connection (RFC 9266 §2). Not for TLS 1.2, where it needs an extended master
    /// secret, which cannot be checked here.
    pub fn exporter(&self) -> Option<Vec<u8>> {
        let tls = self.tls.as_ref()?;
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let label = b"EXPORTER-Channel-Binding";
        tls.export_keying_material(vec![0; 32], label, Some(b""))
            .ok()
    }

    /// The TLS version, if any.
    pub fn tls_version(&self) -> Option<&'static str> {
        match self.tls.as_ref()?.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("1.2"),
            ProtocolVersion::TLSv1_3 => Some("1.3"),
            _ => None,
        }
    }

    /// TLS version and cipher suite, if any.
    pub fn cipher(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let suite = tls.negotiated_cipher_suite()?.suite();
        Some(format!("{:?}:{suite:?}", tls.protocol_version()?))
    }

    /// Flushes output and sends close_notify in TLS; the connection ends with the last owner of the socket. If input is
    /// unread, or more is `expected`, it is dropped until `deadline`. A client that has already gone is not an error.
    pub fn close(&mut self, expected: bool, deadline: Instant) {
        if self.flush(deadline).is_err() {
            return;
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = send_records(tls, &mut self.wire);
        }
        let socket = &self.wire.socket;
        if expected || !self.input().is_empty() || socket.has_input() {
            socket.drain(UNREAD, deadline);
        }
    }
}

/// Sends octets and counts them in `sent`, also those that TLS will send next.
fn send_all(
    wire: &mut Wire,
    mut tls: Option<&mut Connection>,
    octets: &[u8],
    sent: &mut usize,
) -> io::Result<()> {
    loop {
        if let Some(tls) = &mut tls {
            send_records(tls, wire)?;
        }
        let rest = octets.get(*sent..).ok_or(ErrorKind::InvalidInput)?;
        if rest.is_empty() {
            return Ok(());
        }
        let written = match &mut tls {
            None => wire.write(rest)?,
            Some(tls) => tls.writer().write(rest)?,
        };
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        *sent += written;
    }
}

/// Decrypts input, reading until there is some plaintext.
fn read_plaintext(tls: &mut Connection, wire: &mut Wire, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(room) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        read_records(tls, wire)?;
    }
}

/// Reads from the socket once, and sends what TLS itself has to send. 0 is the end.
fn read_records(tls: &mut Connection, wire: &mut Wire) -> io::Result<usize> {
    let octets = tls.read_tls(wire)?;
    let state = tls.process_new_packets();
    if tls.wants_write() {
        let sent = send_records(tls, wire);
        // Sending the alert is optional: the original error is the one that counts.
        if state.is_ok() {
            sent?;
        }
    }
    state.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    Ok(octets)
}

fn send_records(tls: &mut Connection, wire: &mut Wire) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(wire)? == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// The socket with the current deadline, as reader and writer.
struct Wire {
    socket: Arc<Socket>,
    deadline: Instant,
    /// The socket's current timeouts. The write timeout is only set when a write has to wait, which replies rarely do.
    read_wait: Duration,
    write_wait: Duration,
    /// Octets read ahead, because TLS reads in smaller pieces than is efficient for content.
    ahead: Vec<u8>,
    /// The size of the read-ahead from the next read on.
    wanted: usize,
    start: usize,
    end: usize,
}

impl Wire {
    fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            deadline: Instant::now(),
            read_wait: Duration::ZERO,
            write_wait: Duration::ZERO,
            ahead: Vec::new(),
            wanted: 0,
            start: 0,
            end: 0,
        }
    }

    /// Sets the read-ahead, which takes effect once the present one is used up.
    const fn ahead(&mut self, octets: usize) {
        self.wanted = octets;
    }

    /// The remaining time in whole seconds, rounded up, so that an ordinary command needs no system call for a timeout.
    fn left(&self) -> io::Result<Duration> {
        let left = time_left(self.deadline)?;
        Ok(Duration::from_secs(left.as_secs() + 1))
    }

    fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let wait = self.left()?;
        if wait != self.read_wait {
            self.socket.set_read_timeout(wait)?;
            self.read_wait = wait;
        }
        persist(|| self.socket.read(room))
    }
}

/// Repeats `call` until it succeeds or times out.
fn persist(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            other => return other,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && self.ahead.len() != self.wanted {
            self.ahead = vec![0; self.wanted];
        }
        if self.ahead.is_empty() {
            return self.receive(room);
        }
        if self.start == self.end {
            let mut ahead = std::mem::take(&mut self.ahead);
            let read = self.receive(&mut ahead);
            self.ahead = ahead;
            (self.start, self.end) = (0, read?);
        }
        let from = self.ahead.get(self.start..self.end);
        let from = from.ok_or(io::ErrorKind::InvalidData)?;
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
        match self.socket.write_now(octets) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            other => return other,
        }
        let wait = self.left()?;
        if wait != self.write_wait {
            self.socket.set_write_timeout(wait)?;
            self.write_wait = wait;
        }
        persist(|| self.socket.write(octets))
    }

    /// TLS passes a flight in pieces, which are sent in one packet.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [only] => self.write(only),
            _ => {
                let flight: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter())
                    .copied()
                    .collect();
                self.write(&flight)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use rustls::ServerConnection;

    use super::*;
    use crate::net::client_tls::ClientTls;
    use crate::net::tls::Certificate;

    fn in_tls(server: Stream, client: Stream, deadline: Instant) -> [Stream; 2] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let certificate = Certificate::load(&dir.join("cert.pem"), &dir.join("key.pem")).unwrap();
        let here = ServerConnection::new(certificate.config().unwrap()).unwrap();
        let there = ClientTls::new(None).unwrap().connection("x", false);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| client.upgrade(there.unwrap(), deadline).unwrap());
            let server = server.upgrade(here.into(), deadline).unwrap();
            [server, client.join().unwrap()]
        })
    }

    /// A client that does not read for a while gets each reply once.
    #[test]
    fn nothing_is_sent_twice() {
        for tls in [false, true] {
            let (one, other) = UnixStream::pair().unwrap();
            let [mut server, mut client] =
                [one, other].map(|socket| Stream::new(Arc::new(Socket::Unix(socket))));
            let deadline = Instant::now() + Duration::from_secs(20);
            if tls {
                [server, client] = in_tls(server, client, deadline);
            }
            let replies: Vec<u8> = (0..100_000)
                .flat_map(|n| format!("{n}\n").into_bytes())
                .collect();
            server.output().extend_from_slice(&replies);
            let slow = server.flush(Instant::now() + Duration::from_millis(10));
            assert_eq!(slow.map_err(|e| e.kind()), Err(ErrorKind::TimedOut));
            let received = std::thread::scope(|scope| {
                scope.spawn(move || server.close(false, deadline));
                let mut received = Vec::new();
                while received.len() < replies.len() && client.fill(deadline).unwrap() > 0 {
                    let read = client.input().len();
                    received.extend_from_slice(client.input());
                    client.consume(read);
                }
                assert!(!client.fill(deadline).is_ok_and(|more| more > 0));
                received
            });
            assert!(received == replies, "{tls}");
        }
    }
}
