//! Drives an outgoing connection: moves octets between the stream and the protocol core, under deadlines. The core in
//! `smtp::client` has the rules of the protocol, `net` resolves names and opens sockets.

use std::io::{self, BufRead, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::encoding::base64_encode;
use crate::net::client_tls::ClientTls;
use crate::net::dial::{self, Address};
use crate::net::proxy;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::random;
use crate::smtp::client::{
    Channel, ClientConfig, ClientEnvelope, ClientSession, ConnectionError, Extensions, Outcome,
    Stage, Want,
};

/// Timeout of a connection to one address.
const CONNECT: Duration = Duration::from_secs(30);
/// Timeout of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Octets of content encoded at once, and encoded octets sent at once.
const PIECE: usize = 32 * 1024;
/// Time to read a reply from a server that closed the connection in the middle of the content.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The destination, and how to use TLS there.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Tried one after the other, until one answers.
    pub addresses: Vec<Address>,
    /// The name in ASCII, or the address, that a certificate must have.
    pub host: String,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// True if the certificate must be verified.
    pub verify: bool,
    /// True if the name comes out of a DNS without signatures, so that the certificate does not prove that it is the
    /// right one: mail with REQUIRETLS does not go there (RFC 8689 §4.2.1).
    pub unsigned: bool,
    /// True if the server expects a PROXY header; one without addresses is sent.
    pub proxy: bool,
}

/// An open connection, greeted and logged in.
pub struct Connection {
    /// `None` during a handshake, and after a failed one.
    stream: Option<Stream>,
    core: ClientSession,
    handle: Handle,
    tls: ClientTls,
    destination: Destination,
    /// The deadline of the whole connection, if any.
    end: Option<Instant>,
}

/// Closes a connection from another thread.
#[derive(Clone)]
pub struct Handle {
    socket: Arc<Socket>,
    sending: Arc<AtomicBool>,
}

impl Handle {
    /// True while content is being sent, or its reply awaited.
    pub fn is_sending(&self) -> bool {
        self.sending.load(Ordering::SeqCst)
    }

    /// Closes the connection: waiting for the server fails at once.
    pub fn cut(&self) {
        self.socket.shutdown(Shutdown::Both);
    }
}

/// The result of one transaction.
#[derive(Debug)]
pub struct Sent {
    /// One for each recipient of the envelope, in its order.
    pub outcomes: Vec<Outcome>,
    /// The reason why the connection cannot be used again, if any.
    pub failure: Option<ConnectionError>,
}

impl Connection {
    /// Connects, and does greeting, TLS and login. `end` is a deadline for everything on this connection; without it
    /// each step has the timeout of RFC 5321 §4.5.3.2.
    ///
    /// # Errors
    /// Why the connection cannot be used.
    pub fn open(
        destination: &Destination,
        settings: ClientConfig,
        tls: &ClientTls,
        end: Option<Instant>,
    ) -> Result<Self, ConnectionError> {
        let socket = Arc::new(connect(destination, end)?);
        let mut stream = Stream::new(Arc::clone(&socket));
        if destination.proxy {
            stream.output().extend_from_slice(proxy::LOCAL);
        }
        let mut connection = Self::new(
            stream,
            socket,
            Channel::Clear,
            settings,
            (destination, tls, end),
        );
        if destination.implicit_tls {
            let channel = connection.handshake()?;
            connection.core.set_channel(channel);
        }
        connection.greeted()
    }

    /// Continues as the client on an existing stream (RFC 2645 §5), beginning with the greeting.
    ///
    /// # Errors
    /// Why the connection cannot be used.
    pub fn over(
        stream: Stream,
        socket: Arc<Socket>,
        channel: Channel,
        settings: ClientConfig,
        (destination, tls): (&Destination, &ClientTls),
    ) -> Result<Self, ConnectionError> {
        Self::new(stream, socket, channel, settings, (destination, tls, None)).greeted()
    }

    fn new(
        stream: Stream,
        socket: Arc<Socket>,
        channel: Channel,
        settings: ClientConfig,
        (destination, tls, end): (&Destination, &ClientTls, Option<Instant>),
    ) -> Self {
        Self {
            stream: Some(stream),
            core: ClientSession::new(settings, channel),
            handle: Handle {
                socket,
                sending: Arc::default(),
            },
            tls: tls.clone(),
            destination: destination.clone(),
            end,
        }
    }

    fn greeted(mut self) -> Result<Self, ConnectionError> {
        match self.drive() {
            Want::Ready => Ok(self),
            _ => Err(self.failure()),
        }
    }

    /// The server's extensions.
    pub const fn extensions(&self) -> &Extensions {
        self.core.extensions()
    }

    /// A handle for another thread that may close this connection.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// True if the connection is still open and idle, as far as can be told without sending anything.
    pub fn is_open(&self) -> bool {
        self.core.want() == Want::Ready && self.handle.socket.is_quiet()
    }

    /// Sends a message: the whole transaction, in which `content` is read once, from its start to its end.
    pub fn deliver(&mut self, envelope: ClientEnvelope, content: &mut dyn BufRead) -> Sent {
        let recipients = envelope.recipients.len();
        self.core.begin(envelope);
        if self.drive() == Want::Content {
            self.handle.sending.store(true, Ordering::SeqCst);
            self.send_content(content);
            self.drive();
            self.handle.sending.store(false, Ordering::SeqCst);
        }
        // The core has outcomes whenever it stops; without them no recipient may count as settled.
        let outcomes = self.core.take_outcomes();
        let unfinished = || ConnectionError::Protocol(self.core.stage(), "not finished").outcome();
        Sent {
            outcomes: outcomes.unwrap_or_else(|| vec![unfinished(); recipients]),
            failure: self.core.failure().cloned(),
        }
    }

    /// Sends QUIT and closes.
    pub fn quit(mut self) {
        self.core.quit();
        self.drive();
        if let Some(mut stream) = self.stream.take() {
            stream.close(false, self.deadline(Stage::Quit.limit()));
        }
    }

    fn failure(&self) -> ConnectionError {
        let ended = || ConnectionError::Lost(self.core.stage(), "connection ended".to_owned());
        self.core.failure().cloned().unwrap_or_else(ended)
    }

    fn deadline(&self, wait: Duration) -> Instant {
        let deadline = Instant::now() + wait;
        self.end.map_or(deadline, |end| end.min(deadline))
    }

    /// Does what the core wants until the caller must provide content or the next transaction, or the connection is
    /// closed.
    fn drive(&mut self) -> Want {
        loop {
            let want = self.core.want();
            self.log_output(want);
            match want {
                Want::Ready | Want::Content => return want,
                Want::Closed => {
                    let deadline = self.deadline(LAST_WORD);
                    if let Some(stream) = &mut self.stream {
                        stream.output().append(self.core.output());
                        let _ = stream.flush(deadline);
                    }
                    return want;
                }
                Want::StartTls => match self.handshake() {
                    Ok(Channel::Tls { exporter, verified }) => {
                        self.core.tls_started(exporter, verified);
                    }
                    Ok(Channel::Clear) => {}
                    Err(failure) => self.core.lost(failure),
                },
                Want::Reply(stage) => {
                    // The timeout is for the whole reply, even if it arrives octet by octet.
                    let replies = self.core.replies();
                    let deadline = self.deadline(stage.limit());
                    while self.core.replies() == replies && self.core.want() == want {
                        if let Err(e) = self.exchange(deadline) {
                            self.core.lost(ConnectionError::Lost(stage, spelled(&e)));
                        }
                    }
                }
            }
        }
    }

    /// Sends pending output, then reads once.
    fn exchange(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        stream.output().append(self.core.output());
        self.take_input(deadline)
    }

    fn take_input(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        if stream.input().is_empty() && stream.fill(deadline)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        log_input(&self.destination.host, stream.input());
        self.core.input(stream.input());
        let octets = stream.input().len();
        stream.consume(octets);
        Ok(())
    }

    /// Upgrades the stream to TLS.
    fn handshake(&mut self) -> Result<Channel, ConnectionError> {
        let tls = self
            .tls
            .connection(&self.destination.host, self.destination.verify);
        let tls = tls.map_err(ConnectionError::Tls)?;
        let deadline = self.deadline(HANDSHAKE);
        let missing = || ConnectionError::Tls("the connection is gone".to_owned());
        let mut stream = self.stream.take().ok_or_else(missing)?;
        stream.output().append(self.core.output());
        let stream = stream.upgrade(tls, deadline);
        let stream = stream.map_err(|e| ConnectionError::Tls(spelled(&e)))?;
        let exporter = stream.exporter();
        self.stream = Some(stream);
        let verified = self.destination.verify && !self.destination.unsigned;
        Ok(Channel::Tls { exporter, verified })
    }

    /// Sends the content in pieces. A server that closes the connection may have sent a reason before.
    fn send_content(&mut self, content: &mut dyn BufRead) {
        loop {
            let octets = match content.fill_buf() {
                Ok([]) => break,
                Ok(octets) => octets.get(..PIECE).unwrap_or(octets),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    let why = format!("the message cannot be read: {e}");
                    return self.core.lost(ConnectionError::Lost(Stage::Content, why));
                }
            };
            // The last piece is kept until it is known to be the last.
            if self.core.output().len() >= PIECE
                && let Err(e) = self.flush_content()
            {
                self.read_last_word();
                return self
                    .core
                    .lost(ConnectionError::Lost(Stage::Content, spelled(&e)));
            }
            let used = octets.len();
            self.core.content(octets);
            content.consume(used);
        }
        if let Err(e) = self.read_early_reply() {
            self.core
                .lost(ConnectionError::Lost(Stage::Content, spelled(&e)));
        }
        if self.core.want() != Want::Content {
            // The rest could complete a chunk.
            self.core.output().clear();
        }
        self.core.content_end();
    }

    /// Reads a reply that came before the end of the content was sent, and so cannot be the reply to it. A refusal
    /// counts. Any other reply does not, and then the end of the content is not sent.
    fn read_early_reply(&mut self) -> io::Result<()> {
        let deadline = self.deadline(Stage::Content.limit());
        while self.core.want() == Want::Content
            && let Some(stream) = &mut self.stream
            && stream.has_input(deadline)?
        {
            self.take_input(deadline)?;
        }
        Ok(())
    }

    fn flush_content(&mut self) -> io::Result<()> {
        let deadline = self.deadline(Stage::Content.limit());
        let Some(stream) = &mut self.stream else {
            return Err(ErrorKind::NotConnected.into());
        };
        stream.output().append(self.core.output());
        stream.flush(deadline)
    }

    fn read_last_word(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.output().clear();
        }
        self.core.output().clear();
        let _ = self.exchange(self.deadline(LAST_WORD));
    }

    /// Logs commands at level debug; never secrets or content.
    fn log_output(&mut self, want: Want) {
        let content = matches!(want, Want::Reply(Stage::End) | Want::Closed);
        if content || !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let host = &self.destination.host;
        let output = String::from_utf8_lossy(self.core.output()).into_owned();
        for line in output.lines() {
            let secret = want == Want::Reply(Stage::Auth);
            match line.split_once(' ') {
                _ if !secret => log::debug!("{host} C: {}", line.escape_debug()),
                Some((verb, rest)) => log::debug!("{host} C: {verb} [{} octets]", rest.len()),
                None => log::debug!("{host} C: [{} octets]", line.len()),
            }
        }
    }
}

fn log_input(host: &str, input: &[u8]) {
    if log::log_enabled!(log::Level::Debug) {
        for line in String::from_utf8_lossy(input).lines() {
            log::debug!("{host} S: {}", line.escape_debug());
        }
    }
}

/// Connects to the first address that answers.
fn connect(destination: &Destination, end: Option<Instant>) -> Result<Socket, ConnectionError> {
    let mut why = format!("{}: no address", destination.host);
    for address in &destination.addresses {
        let deadline = Instant::now() + CONNECT;
        let deadline = end.map_or(deadline, |end| end.min(deadline));
        match dial::connect(address, deadline) {
            Ok(socket) => return Ok(socket),
            Err(e) => why = format!("{address}: {}", spelled(&e)),
        }
    }
    Err(ConnectionError::Lost(Stage::Connect, why))
}

/// An error in an operator's words.
fn spelled(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "timed out".to_owned(),
        ErrorKind::UnexpectedEof => "connection closed by the server".to_owned(),
        _ => error.to_string(),
    }
}

/// A nonce for [`ClientConfig`]: 18 random octets in base64.
///
/// # Errors
/// The system has no random numbers.
pub fn nonce() -> io::Result<String> {
    Ok(base64_encode(&random::octets::<18>()?))
}
