//! Drives one connection: lines to the session, replies to the stream, and timeouts. `content` reads messages.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::backend::ServerBackend;
use super::client::Client;
use super::floor::Floor;
use super::handshake::handshake;
use super::live::Live;
use super::message::Message;
use super::proxied::{self, ClaimSlot};
use super::recipients::RecipientCount;
use crate::deliver::Group;
use crate::greylist::Keeper;
use crate::maillog;
use crate::net::stream::{Stream, UNREAD};
use crate::relay::{Relay, Turned};
use crate::smtp::line::{Lines, Split};
use crate::smtp::policy::{HEALTHCHECK, Service};
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Channel, Next, Session, Step};
use crate::smtp::xclient::Attributes;
use crate::state::{ServerState, Snapshot, under_stress};

/// Timeout of a TLS handshake, independent of `--timeout`.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Delay of the reply to a failed login: it slows down guessing without blocking a thread for long.
const WRONG_LOGIN_PAUSE: Duration = Duration::from_millis(200);
/// Maximum refusals of a connection with their own log line; more are only counted.
const REFUSALS: usize = 10;
/// Octets of replies to pipelined commands that wait for the last of these: the members of a list may be many (EXPN).
const MAX_UNSENT: usize = 64 * 1024;
/// EHLO or LHLO, and QUIT.
const HEALTHCHECK_LINES: u8 = 2;
/// The code of a challenge (RFC 4954 §4).
const CHALLENGE: u16 = 334;
/// How long remaining input is dropped before a close.
pub(super) const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Conn<'a> {
    pub(super) state: &'a ServerState,
    pub(super) live: &'a Live,
    pub(super) client: Client,
    claim: ClaimSlot<'a>,
    listener: usize,
    snapshot: Arc<Snapshot>,
    generation: usize,
    pub(super) stream: Stream,
    pub(super) session: Session<Group>,
    cipher: Option<String>,
    begun: Instant,
    /// When it last brought a message, or began.
    pub(super) useful: Instant,
    pub(super) messages: usize,
    /// Refusals so far.
    refusals: usize,
    /// Lines so far, up to 255.
    lines: u8,
    /// True if an AUTH challenge awaits its response.
    challenged: bool,
    /// A message in chunks, between two of them.
    pub(super) chunked: Option<Box<Incoming>>,
    /// The minimum rate of the current content.
    pub(super) floor: Option<Floor>,
    recipients: RecipientCount<'a>,
}

/// A message and its start.
pub(super) struct Incoming {
    pub(super) message: Message,
    pub(super) begun: Instant,
}

/// The end of a part of the dialogue.
pub(super) enum Ended {
    /// With this final reply.
    Close(Reply),
    StartTls,
    /// The client fetches its mail for these domains.
    Turn(Vec<String>),
}

/// Why a connection ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client timed out or was too slow.
    TimedOut,
    /// The server stops.
    Shutdown,
    /// The client closed the connection.
    Gone,
    /// The connection broke.
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Broken(error),
        }
    }
}

/// Serves one client of listener number `listener`. `claim` counts the connection for the client that a trusted proxy
/// names.
pub fn serve(
    state: &ServerState,
    live: &Live,
    client: Client,
    listener: usize,
    claim: ClaimSlot<'_>,
) {
    // The connection is made once and stays where it is: each move is another copy on the stack of an idle thread.
    let generation = state.generation.load(Ordering::SeqCst);
    let snapshot = state.snapshot();
    let Some(rules) = snapshot.listeners.get(listener) else {
        return;
    };
    let (policy, implicit, proxy) = (Arc::clone(&rules.policy), rules.implicit, rules.proxy);
    let mut conn = Conn {
        state,
        live,
        client,
        claim,
        listener,
        snapshot,
        generation,
        stream: Stream::new(Arc::clone(&live.socket)),
        session: Session::new(policy, Channel::Clear),
        cipher: None,
        begun: Instant::now(),
        useful: Instant::now(),
        messages: 0,
        refusals: 0,
        lines: 0,
        challenged: false,
        chunked: None,
        floor: None,
        recipients: RecipientCount::new(&state.recipients),
    };
    let served = catch_unwind(AssertUnwindSafe(|| {
        if conn.open(implicit, proxy).is_some() {
            conn.serve();
        }
    }));
    if let Err(panic) = served {
        // With reversed roles it would not be a reply.
        if !live.is_turned() {
            conn.say(Some(&reply::INTERNAL_ERROR));
            conn.end(&maillog::one_line(&reply::INTERNAL_ERROR), true);
        }
        resume_unwind(panic);
    }
}

impl<'a> Conn<'a> {
    /// Everything before the greeting: the PROXY header if expected, and an implicit TLS handshake.
    fn open(&mut self, implicit: bool, proxy: bool) -> Option<()> {
        if proxy {
            self.proxied()?;
        }
        self.trust();
        if implicit {
            self.stream.give_back();
            self.secure()?;
        }
        let greeting = self.session.greeting();
        self.say(Some(&greeting));
        Some(())
    }

    /// Tells the session what the client's address may do.
    fn trust(&mut self) {
        let relay = self.state.relay.get();
        let exempt = relay.is_some_and(|relay| self.client.is_in(relay.open_to()));
        let trusted = self.client.is_in(&self.state.trust);
        self.session.trust(trusted, exempt);
    }

    /// Reads the PROXY header and checks that its client may have one more connection.
    fn proxied(&mut self) -> Option<()> {
        match proxied::client(self.state, self.live, &mut self.stream) {
            Ok(Some(client)) => self.client = client,
            Ok(None) => {}
            Err(end) => {
                self.log_end(log::Level::Info, &self.who(), &end);
                return None;
            }
        }
        if let Err(refused) = (self.claim)(self.client.counted()) {
            self.say(Some(&refused));
            self.end(&maillog::one_line(&refused), true);
            return None;
        }
        Some(())
    }

    fn serve(&mut self) {
        let (end, unread) = loop {
            match self.run() {
                // After QUIT there is no more input.
                Ok(Ended::Close(last)) => break (maillog::one_line(&last).into(), last.is_error()),
                Ok(Ended::StartTls) => {
                    if self.secure().is_none() {
                        return;
                    }
                }
                Ok(Ended::Turn(domains)) => return self.turn(&domains),
                Err(stop) => {
                    let unread = !matches!(stop, Stop::Gone | Stop::Broken(_));
                    break (self.final_reply(&stop), unread);
                }
            }
        };
        self.end(&end, unread);
    }

    /// Logs why the connection ends, and closes it.
    fn end(&mut self, end: &str, unread: bool) {
        let level = match self.is_healthcheck() {
            true => log::Level::Debug,
            false => log::Level::Info,
        };
        if log::log_enabled!(level) {
            self.log_end(level, &self.who(), end);
        }
        self.stream.close(unread, Instant::now() + LINGER);
    }

    fn log_end(&self, level: log::Level, who: &str, end: &str) {
        let more = self.refusals.saturating_sub(REFUSALS);
        maillog::connection(level, who, self.messages, more, end, self.begun.elapsed());
    }

    /// Does the handshake. It consumes the plaintext stream, so that no earlier input can count as protected. A failure
    /// is logged and ends the connection.
    #[inline(never)]
    fn secure(&mut self) -> Option<()> {
        let who = self.who();
        let config = self.snapshot.listeners.get(self.listener)?.tls.clone()?;
        let begun = Instant::now();
        let short = under_stress(HANDSHAKE.min(self.state.timeout));
        self.live.begin_wait(None, begun + short);
        let secured = handshake(self.take_stream(), &config, begun + HANDSHAKE);
        self.live.end_wait();
        let version = secured.as_ref().ok().and_then(Stream::tls_version);
        let version = version.unwrap_or("unknown");
        self.state.metrics.handshake(version, secured.is_ok());
        match secured {
            Ok(stream) => {
                self.session.tls_started(stream.exporter());
                self.cipher = stream.cipher();
                self.stream = stream;
                Some(())
            }
            Err(error) => {
                let end = format!("TLS handshake: {error}");
                self.log_end(log::Level::Info, &who, &end);
                self.live.socket.drain(UNREAD, Instant::now() + LINGER);
                None
            }
        }
    }

    /// Hands the stream on; only an empty one is left.
    fn take_stream(&mut self) -> Stream {
        let empty = Stream::new(Arc::clone(&self.live.socket));
        std::mem::replace(&mut self.stream, empty)
    }

    /// True for a connection of `--healthcheck`: from this host, and nothing but a greeting and QUIT. Anything more is
    /// logged, whatever name the client gives.
    fn is_healthcheck(&self) -> bool {
        self.lines == HEALTHCHECK_LINES
            && self.refusals == 0
            && self.session.helo() == Some(HEALTHCHECK)
            && self.client.is_own()
    }

    /// Reverses the roles and sends queued mail over this connection (RFC 2645 §5.2).
    fn turn(&mut self, domains: &[String]) {
        let (who, user) = (
            self.who(),
            self.session.user().unwrap_or_default().to_owned(),
        );
        let _ = self.flush(Instant::now());
        self.live.set_turned();
        if let Some((relay, _)) = self.relay() {
            let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
            let turned = Turned {
                stream: self.take_stream(),
                socket: Arc::clone(&self.live.socket),
                tls: self.cipher.is_some(),
                peer: self.client.log_name().to_owned(),
            };
            relay.turn(&user, &domains, turned);
        }
        self.log_end(log::Level::Info, &who, "turned");
    }

    /// The relay, and true if this client may use it now.
    fn relay(&self) -> Option<(&'a Relay, bool)> {
        let relay = self.state.relay.get()?;
        let open = self.session.user().is_some() || self.client.is_in(relay.open_to());
        Some((relay.as_ref(), open))
    }

    /// The greylist, if it applies: on `smtp` listeners, for clients that may not relay and are not trusted.
    fn greylist(&self) -> Option<&'a Keeper> {
        let greylist = self.state.greylist.get()?;
        let everybody = self.session.policy().service == Service::Smtp;
        let open = self.session.user().is_some() || self.relay().is_some_and(|(_, open)| open);
        let exempt = open || self.client.is_in(&self.state.trust);
        (everybody && !exempt).then_some(greylist.as_ref())
    }

    pub(super) fn who(&self) -> String {
        maillog::who(
            self.client.log_name(),
            &self.session,
            self.cipher.as_deref(),
        )
    }

    /// Runs the dialogue until the connection, or its plaintext part, ends.
    fn run(&mut self) -> Result<Ended, Stop> {
        let mut lines = Lines::new();
        loop {
            let step = self.command(&mut lines)?;
            if matches!(step.next, Next::Data | Next::Chunk { .. }) {
                self.begin_content()?;
            } else if self.session.transaction().is_none() {
                self.end_content();
            }
            self.say(step.reply.as_ref());
            // RFC 2920 §3.2: only some replies may wait for further ones. What ends this dialogue sends its own.
            let ends = matches!(step.next, Next::Close | Next::StartTls | Next::Turn(_));
            let waits = self.session.is_grouped() && self.stream.output().len() <= MAX_UNSENT;
            if !(ends || waits) {
                match self.flush(Instant::now()) {
                    // A client that has gone may have sent a whole message before.
                    Err(e)
                        if e.kind() != ErrorKind::TimedOut && !self.stream.input().is_empty() => {}
                    sent => sent?,
                }
            }
            let ended = match step.next {
                Next::Command => None,
                Next::Data => self.data()?,
                Next::Chunk { size, last } => self.chunk(size, last)?,
                Next::Skip { size, reply, times } => self.skip(size, &reply, times)?,
                Next::Close => Some(Ended::Close(step.reply.unwrap_or(reply::BYE))),
                Next::StartTls => Some(Ended::StartTls),
                Next::Xclient(attributes) => self.hand_over(*attributes),
                Next::Turn(domains) => Some(Ended::Turn(domains)),
            };
            let transaction = self.session.transaction();
            self.recipients
                .set(transaction.map_or(0, |t| t.recipients.len()));
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// XCLIENT: continues as the client that a trusted proxy names, if that client may have one more connection. From
    /// now on the connection only has the client's rights.
    fn hand_over(&mut self, mut attributes: Attributes) -> Option<Ended> {
        // As after AUTH, a user is one whatever the spelling of the login.
        if let Some(login) = &mut attributes.login
            && let Some(account) = self.snapshot.directory.account_name(login)
        {
            *login = account;
        }
        self.client = self.client.handed_over(&attributes);
        if let Err(refused) = (self.claim)(self.client.counted()) {
            self.say(Some(&refused));
            return Some(Ended::Close(refused));
        }
        self.trust();
        let greeting = self.session.xclient_done(&attributes);
        self.say(Some(&greeting));
        None
    }

    pub(super) fn say(&mut self, reply: Option<&Reply>) {
        if let Some(reply) = reply {
            if log::log_enabled!(log::Level::Debug) {
                maillog::reply(self.client.log_name(), reply);
            }
            if reply.is_error() {
                self.state.metrics.refusal(reply.code());
            }
            reply.render(self.stream.output());
        }
    }

    /// Reads the next line and returns the session's step. The timeout is for the whole line, not for each octet.
    fn command(&mut self, lines: &mut Lines) -> Result<Step, Stop> {
        let mut since = None;
        loop {
            if self.generation != self.state.generation.load(Ordering::Relaxed) {
                self.renew();
            }
            let session = &self.session;
            match lines.take(self.stream.input(), |start| session.line_limit(start)) {
                Split::Line { line, used } => {
                    let mut backend = ServerBackend {
                        directory: &self.snapshot.directory,
                        tokens: self.snapshot.tokens.as_ref(),
                        store: &self.state.store,
                        relay: self.relay(),
                        throttle: &self.state.throttle,
                        client: self.client.counted(),
                        greylist: self.greylist(),
                    };
                    self.lines = self.lines.saturating_add(1);
                    let more_input = self.stream.input().len() > used;
                    let wrong = self.session.wrong_logins();
                    let challenged = std::mem::take(&mut self.challenged);
                    let command = maillog::LoggedCommand::new(line, challenged);
                    if log::log_enabled!(log::Level::Debug) {
                        maillog::command(self.client.log_name(), &command);
                    }
                    self.session.limit_recipients(self.recipients.limit());
                    let step = self.session.line(line, more_input, &mut backend);
                    self.challenged = step.reply.as_ref().is_some_and(|r| r.code() == CHALLENGE);
                    if let Some(refusal) = step.refusal() {
                        self.refusals += 1;
                        if self.refusals <= REFUSALS {
                            maillog::refused(&self.who(), &command, refusal);
                        }
                    }
                    self.stream.consume(used);
                    self.count_login();
                    if self.session.wrong_logins() > wrong {
                        self.wrong_login();
                    }
                    return Ok(step);
                }
                Split::More { used } => self.stream.consume(used),
                Split::Flood => return Ok(Step::last(reply::ENDLESS_LINE)),
            }
            since = Some(self.wait(since)?);
        }
    }

    /// Logs a failed login, counts it for all connections of the client, and delays the reply.
    fn wrong_login(&self) {
        maillog::wrong_login(self.client.log_name(), self.session.tried_account());
        self.state.throttle.wrong_login(self.client.counted());
        std::thread::sleep(WRONG_LOGIN_PAUSE);
    }

    fn count_login(&mut self) {
        if let Some((mechanism, succeeded)) = self.session.take_login() {
            self.state.metrics.login(mechanism.name(), succeeded);
        }
    }

    /// Switches to reloaded files, unless a transaction is in progress.
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

    /// The final reply to a client, and the reason for the log.
    fn final_reply(&mut self, stop: &Stop) -> Cow<'static, str> {
        let reply = match stop {
            Stop::TimedOut => reply::TIMED_OUT,
            Stop::Shutdown => reply::UNAVAILABLE,
            Stop::Gone => return "client closed the connection".into(),
            Stop::Broken(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return "client closed the connection without close_notify".into();
            }
            Stop::Broken(error) => return error.to_string().into(),
        };
        self.say(Some(&reply));
        maillog::one_line(&reply).into()
    }
}
