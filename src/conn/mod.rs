//! The driver of one connection: octets from the stream to the session, recipients from the
//! directory, content to the spool. The only file that sees all of them; the rules of the
//! protocol are the session's, durability is the spool's.

pub mod backend;
pub mod message;

use self::backend::ServerBackend;
use self::message::{Mailboxes, Message, Origin, Outcome};
use crate::maillog;
use crate::net::listen::Peer;
use crate::net::stream::Stream;
use crate::relay::Relay;
use crate::smtp::body::Decoded;
use crate::smtp::line::{Lines, Split};
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Channel, Next, Session, Step};
use crate::state::{Live, ServerState, Snapshot};
use rustls::{ServerConfig, ServerConnection};
use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A message must bring this many octets in any [`FLOOR_WINDOW`]: 100 a second.
const FLOOR: u64 = 6_000;
const FLOOR_WINDOW: Duration = Duration::from_secs(60);
/// The wait for a TLS handshake, whatever the timeout is.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Octets of a handshake's stack; the tests, in an unoptimized build, get by with a third of it.
const HANDSHAKE_STACK: usize = 192 * 1024;
/// A wrong login is answered this much later: enough to make guessing slow, and too little to
/// hold a thread.
const WRONG_LOGIN_PAUSE: Duration = Duration::from_millis(200);
/// The wait for a client that is hung up on to take the last word.
const LINGER: Duration = Duration::from_secs(1);

struct Conn<'a> {
    state: &'a ServerState,
    live: &'a Live,
    client: &'a str,
    /// The client as Received names it.
    trace_name: String,
    listener: usize,
    snapshot: Arc<Snapshot>,
    generation: usize,
    stream: Stream,
    session: Session<Mailboxes>,
    cipher: Option<String>,
    /// Whether the client may send mail onward without a login.
    may_relay: bool,
    begun: Instant,
    messages: u64,
}

/// How a stretch of dialogue ended.
enum Ended {
    Close,
    StartTls,
}

/// A message that arrives in chunks.
struct Chunked {
    begun: Instant,
    message: Message,
}

/// Serves one client of listener number `listener` to its end.
pub fn serve(state: &ServerState, live: &Live, peer: &Peer, listener: usize) {
    let client = maillog::client(peer);
    if let Some(conn) = Conn::open(state, live, peer, &client, listener) {
        conn.serve();
    }
}

impl<'a> Conn<'a> {
    /// Up to the greeting; the handshake first where TLS is implicit.
    fn open(
        state: &'a ServerState,
        live: &'a Live,
        peer: &'a Peer,
        client: &'a str,
        listener: usize,
    ) -> Option<Self> {
        let generation = state.generation.load(Ordering::SeqCst);
        let snapshot = state.snapshot();
        let rules = snapshot.listeners.get(listener)?;
        let (policy, implicit) = (Arc::clone(&rules.policy), rules.implicit);
        let mut conn = Self {
            state,
            live,
            client,
            trace_name: maillog::trace_name(peer),
            listener,
            snapshot,
            generation,
            stream: Stream::new(Arc::clone(&live.socket)),
            session: Session::new(policy, Channel::Clear),
            cipher: None,
            may_relay: state
                .relay
                .get()
                .is_some_and(|relay| relay.is_open_to(peer)),
            begun: Instant::now(),
            messages: 0,
        };
        if implicit {
            conn = conn.secure()?;
        }
        conn.session.greeting().render(conn.stream.output());
        Some(conn)
    }

    fn serve(mut self) {
        let end = loop {
            match self.run() {
                Ok(Ended::Close) => break Cow::Borrowed("closed"),
                Ok(Ended::StartTls) => match self.secure() {
                    Some(secured) => self = secured,
                    None => return,
                },
                Err(error) => break self.farewell(&error),
            }
        };
        if log::log_enabled!(log::Level::Info) {
            maillog::connection(&self.who(), self.messages, &end, self.begun.elapsed());
        }
        self.stream.close(Instant::now() + LINGER);
    }

    /// The handshake. It consumes the clear stream, so that nothing that came before it can be
    /// taken for something that came in TLS; a failed one is logged, and that was it.
    #[inline(never)]
    fn secure(self) -> Option<Self> {
        let who = self.who();
        let config = self.snapshot.listeners.get(self.listener)?.tls.clone()?;
        let deadline = Instant::now() + HANDSHAKE;
        match handshake(self.stream, config, deadline) {
            Ok(stream) => {
                let mut session = self.session;
                session.tls_started(stream.exporter());
                Some(Self {
                    cipher: stream.cipher(),
                    stream,
                    session,
                    ..self
                })
            }
            Err(error) => {
                let end = format!("TLS handshake: {error}");
                maillog::connection(&who, self.messages, &end, self.begun.elapsed());
                self.live.socket.shutdown(std::net::Shutdown::Both);
                None
            }
        }
    }

    /// The relay, and whether this client may use it now.
    fn relay(&self) -> Option<(&'a Relay, bool)> {
        let open = self.may_relay || self.session.user().is_some();
        self.state.relay.get().map(|relay| (relay.as_ref(), open))
    }

    fn who(&self) -> String {
        maillog::who(self.client, &self.session, self.cipher.as_deref())
    }

    /// Commands and messages, to the end of the connection or of the clear part of it.
    fn run(&mut self) -> io::Result<Ended> {
        let mut lines = Lines::new();
        let mut chunks: Option<Chunked> = None;
        loop {
            let step = self.command(&mut lines)?;
            self.say(step.reply.as_ref());
            if self.session.transaction().is_none() && !matches!(step.next, Next::Chunk { .. }) {
                chunks = None;
            }
            let next = match step.next {
                Next::Data => self.data()?,
                Next::Chunk { size, last } => self.chunk(size, last, &mut chunks)?,
                Next::Skip { size, reply } => {
                    self.octets(size, |_| Ok(()))?;
                    self.say(Some(&reply));
                    Next::Command
                }
                other => other,
            };
            match next {
                Next::Close => return Ok(Ended::Close),
                Next::StartTls => return Ok(Ended::StartTls),
                _ => {}
            }
        }
    }

    fn say(&mut self, reply: Option<&Reply>) {
        if let Some(reply) = reply {
            reply.render(self.stream.output());
        }
    }

    /// The next line's step. The deadline is over the whole line and not each octet.
    fn command(&mut self, lines: &mut Lines) -> io::Result<Step> {
        let deadline = Instant::now() + self.state.wait();
        loop {
            if self.generation != self.state.generation.load(Ordering::Relaxed) {
                self.renew();
            }
            let session = &self.session;
            match lines.take(self.stream.input(), |start| session.line_limit(start)) {
                Split::Line { line, used } => {
                    let mut backend = ServerBackend {
                        directory: &self.snapshot.directory,
                        store: &self.state.store,
                        relay: self.relay(),
                    };
                    let behind = self.stream.input().len() > used;
                    let wrong = self.session.wrong_logins();
                    let step = self.session.line(line, behind, &mut backend);
                    self.stream.consume(used);
                    if self.session.wrong_logins() > wrong {
                        maillog::wrong_login(self.client);
                        std::thread::sleep(WRONG_LOGIN_PAUSE);
                    }
                    return Ok(step);
                }
                Split::More { used } => self.stream.consume(used),
                Split::Flood => {
                    return Ok(Step {
                        reply: Some(reply::TOO_MUCH),
                        next: Next::Close,
                    });
                }
            }
            self.wait(deadline)?;
        }
    }

    /// Takes what was read anew, unless a transaction is under way.
    fn renew(&mut self) {
        if self.session.transaction().is_some() {
            return;
        }
        self.generation = self.state.generation.load(Ordering::SeqCst);
        self.snapshot = self.state.snapshot();
        if let Some(rules) = self.snapshot.listeners.get(self.listener) {
            self.session.renew(Arc::clone(&rules.policy));
        }
    }

    /// More input, or an error for the end of it.
    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        if self.state.stopping.load(Ordering::SeqCst) && !self.live.busy.load(Ordering::SeqCst) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match self.stream.fill(deadline)? {
            0 if self.state.stopping.load(Ordering::SeqCst) => {
                Err(ErrorKind::ConnectionAborted.into())
            }
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The last word to a client that is hung up on.
    fn farewell(&mut self, error: &io::Error) -> Cow<'static, str> {
        let word = match error.kind() {
            ErrorKind::TimedOut => reply::TIMED_OUT,
            _ if self.state.stopping.load(Ordering::SeqCst) => reply::UNAVAILABLE,
            ErrorKind::UnexpectedEof => return "client went away".into(),
            _ => return error.to_string().into(),
        };
        word.render(self.stream.output());
        word.text().to_owned().into()
    }

    /// DATA to its lone dot.
    #[inline(never)]
    fn data(&mut self) -> io::Result<Next> {
        let begun = Instant::now();
        // The client gets its message ready while the file is opened.
        if self.stream.input().is_empty() {
            self.stream.flush(begun + self.state.wait())?;
        }
        let mut message = Message::data(&self.session, &self.state.store, self.origin());
        let refused = self.body(|input| match message.feed(input)? {
            Decoded::More => Ok((input.len(), false)),
            Decoded::End { used } => Ok((used, true)),
        })?;
        if let Some(refused) = refused {
            self.say(Some(&refused));
            return Ok(Next::Close);
        }
        Ok(self.conclude(message, begun))
    }

    /// One chunk of BDAT.
    #[inline(never)]
    fn chunk(&mut self, size: u64, last: bool, open: &mut Option<Chunked>) -> io::Result<Next> {
        let mut chunked = open.take().unwrap_or_else(|| Chunked {
            begun: Instant::now(),
            message: Message::chunked(&self.session, &self.state.store, self.origin()),
        });
        let refused = self.octets(size, |octets| chunked.message.feed(octets).map(|_| ()))?;
        if let Some(refused) = refused {
            self.say(Some(&refused));
            return Ok(Next::Close);
        }
        if !last {
            *open = Some(chunked);
            let step = self.session.chunk_received();
            self.say(step.reply.as_ref());
            return Ok(step.next);
        }
        Ok(self.conclude(chunked.message, chunked.begun))
    }

    /// Reads and hands on exactly `size` octets.
    fn octets(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Reply>,
    ) -> io::Result<Option<Reply>> {
        let mut left = size;
        if left == 0 {
            return Ok(None);
        }
        self.body(|input| {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let part = input.get(..most).unwrap_or(input);
            take(part)?;
            left -= part.len() as u64;
            Ok((part.len(), left == 0))
        })
    }

    /// Feeds input to `take` until it says that the message is over, or refuses it.
    fn body(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(usize, bool), Reply>,
    ) -> io::Result<Option<Reply>> {
        self.live.busy.store(true, Ordering::SeqCst);
        let mut large = false;
        let (mut window, mut came) = (Instant::now(), 0_u64);
        let outcome = loop {
            match take(self.stream.input()) {
                Err(refused) => break Some(refused),
                Ok((used, over)) => {
                    came += used as u64;
                    self.stream.consume(used);
                    if over {
                        break None;
                    }
                }
            }
            if window.elapsed() >= FLOOR_WINDOW {
                if came < FLOOR {
                    return Err(ErrorKind::TimedOut.into());
                }
                (window, came) = (Instant::now(), 0);
            }
            // What came with its command needs no larger buffer.
            if !large {
                self.stream.body_mode(true);
                large = true;
            }
            self.wait(Instant::now() + self.state.wait())?;
        };
        if large {
            self.stream.body_mode(false);
        }
        self.live.busy.store(false, Ordering::SeqCst);
        Ok(outcome)
    }

    /// The end of a message: one reply, or on LMTP one for each recipient.
    #[inline(never)]
    fn conclude(&mut self, message: Message, begun: Instant) -> Next {
        let outcome = message.finish(&self.session, self.state.relay.get().map(Arc::as_ref));
        if outcome.replies.iter().any(|reply| !reply.is_error()) {
            self.messages += 1;
        }
        self.log_message(&outcome, begun);
        let (replies, next) = self.session.finish(outcome.replies);
        for reply in &replies {
            self.say(Some(reply));
        }
        self.sweep();
        next
    }

    /// Housekeeping, behind the reply: no client waits for it.
    fn sweep(&mut self) {
        if self.state.store.sweep_due() {
            // Where the client is gone, the next read will say so.
            let _ = self.stream.flush(Instant::now() + LINGER);
            self.state.store.sweep();
        }
    }

    fn log_message(&self, outcome: &Outcome, begun: Instant) {
        if log::log_enabled!(log::Level::Info) {
            let statuses: Vec<u16> = outcome.replies.iter().map(Reply::code).collect();
            let id = outcome.id.as_deref().unwrap_or("none");
            let (who, took) = (self.who(), begun.elapsed());
            maillog::message(id, &who, &self.session, &statuses, outcome.size, took);
        }
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            peer: &self.trace_name,
            auth_header: self.state.auth_header,
        }
    }
}

/// A handshake goes deeper into the stack than all that follows, and pages that were touched once stay
/// in memory for as long as the connection idles: so it has a thread of its own, whose stack goes
/// to the next handshake. The size differs from that of connections, which so never get it.
fn handshake(stream: Stream, config: Arc<ServerConfig>, deadline: Instant) -> io::Result<Stream> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(HANDSHAKE_STACK);
        let thread = builder.spawn_scoped(scope, || {
            let tls = ServerConnection::new(config).map_err(io::Error::other)?;
            stream.upgrade(tls.into(), deadline)
        })?;
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the handshake ended in a panic")))
    })
}
