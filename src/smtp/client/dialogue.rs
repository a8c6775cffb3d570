//! The client's dialogue: greeting, EHLO, STARTTLS, AUTH, transactions, QUIT. [`ClientSession::input`] takes replies,
//! [`ClientSession::output`] has the commands, and [`ClientSession::want`] says what the driver has to do next.

use std::fmt;

use zeroize::Zeroizing;

use super::envelope::ClientEnvelope;
use super::extensions::Extensions;
use super::outcome::{ConnectionError, Outcome, Stage};
use super::reply::{RemoteReply, Replies};
use super::transaction::{Flow, Transaction, UNEXPECTED};
use crate::auth::client::{ClientExchange, choose};
use crate::encoding::{base64_decode, base64_encode};

/// RFC 3207 §4.2: input in the clear after the reply to STARTTLS was injected.
const INJECTED: &str = "input after the reply to STARTTLS";

/// How STARTTLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsUse {
    /// None.
    Never,
    /// If it is offered.
    Offered,
    /// Required: nothing is sent without TLS.
    Required,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The login name.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.user)
    }
}

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// LMTP instead of SMTP.
    pub lmtp: bool,
    /// The name in EHLO.
    pub hostname: String,
    /// STARTTLS.
    pub tls: TlsUse,
    /// The login, if any; then nothing is sent before it has succeeded.
    pub login: Option<Credentials>,
    /// Fresh, unpredictable, printable text without commas, for SCRAM.
    pub nonce: String,
}

/// The transport of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Plaintext.
    Clear,
    /// In TLS.
    Tls {
        /// The `tls-exporter` value (RFC 9266), if it is available.
        exporter: Option<Vec<u8>>,
        /// True if the server's certificate was verified, for a name that is known to be the right one.
        verified: bool,
    },
}

/// The driver's next action, after it has sent the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Read; no longer than [`Stage::limit`].
    Reply(Stage),
    /// Do a TLS handshake, then call [`ClientSession::tls_started`].
    StartTls,
    /// Hand over the content by [`ClientSession::content`], then call [`ClientSession::content_end`].
    Content,
    /// Begin a transaction, or quit.
    Ready,
    /// Close the connection.
    Closed,
}

#[derive(Debug)]
enum State {
    Greeting,
    /// EHLO or LHLO was sent, or HELO after EHLO was not understood.
    Hello {
        helo: bool,
    },
    StartTls,
    Handshake,
    Auth(Box<ClientExchange>),
    Ready,
    Commands(Box<Transaction>),
    Content(Box<Transaction>),
    End(Box<Transaction>),
    /// The reply to an empty message without recipients.
    EmptyEnd(Box<Transaction>),
    Quit,
    Closed,
}

/// The client's side of a connection.
#[derive(Debug)]
pub struct ClientSession {
    settings: ClientConfig,
    channel: Channel,
    state: State,
    replies: Replies,
    /// Complete replies so far.
    count: usize,
    output: Vec<u8>,
    offered: Extensions,
    /// The last transaction was not completed: send RSET before the next.
    reset: bool,
    outcomes: Option<Vec<Outcome>>,
    failure: Option<ConnectionError>,
}

impl ClientSession {
    /// A client on a new connection, before the greeting.
    pub const fn new(settings: ClientConfig, channel: Channel) -> Self {
        Self {
            settings,
            channel,
            state: State::Greeting,
            replies: Replies::new(),
            count: 0,
            output: Vec::new(),
            offered: Extensions::NONE,
            reset: false,
            outcomes: None,
            failure: None,
        }
    }

    /// Sets the channel before the greeting, for TLS from the first octet.
    pub fn set_channel(&mut self, channel: Channel) {
        self.channel = channel;
    }

    /// The driver's next action.
    pub fn want(&self) -> Want {
        match &self.state {
            State::Handshake => Want::StartTls,
            State::Content(_) => Want::Content,
            State::Ready => Want::Ready,
            State::Closed => Want::Closed,
            _ => Want::Reply(self.stage()),
        }
    }

    /// Octets to send; the driver removes what it has sent.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Replies received so far; each one restarts the timeout.
    pub const fn replies(&self) -> usize {
        self.count
    }

    /// The server's extensions.
    pub const fn extensions(&self) -> &Extensions {
        &self.offered
    }

    /// Takes the outcomes of the transaction that has ended.
    pub const fn take_outcomes(&mut self) -> Option<Vec<Outcome>> {
        self.outcomes.take()
    }

    /// The reason why the connection was closed; `None` if this side wanted it.
    pub const fn failure(&self) -> Option<&ConnectionError> {
        self.failure.as_ref()
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        match &self.state {
            State::Greeting => Stage::Greeting,
            // With TLS 1.3 the server may refuse the handshake after the client has finished it.
            State::Hello { .. } if self.is_upgraded() => Stage::StartTls,
            State::Hello { .. } => Stage::Hello,
            State::StartTls | State::Handshake => Stage::StartTls,
            State::Auth(_) => Stage::Auth,
            State::Ready => Stage::Idle,
            State::Commands(transaction) => transaction.stage(),
            State::Content(_) => Stage::Content,
            State::End(_) | State::EmptyEnd(_) => Stage::End,
            State::Quit | State::Closed => Stage::Quit,
        }
    }

    /// True after STARTTLS, which is the only way to TLS for a client that uses it.
    fn is_upgraded(&self) -> bool {
        self.settings.tls != TlsUse::Never && self.channel != Channel::Clear
    }

    /// Begins a transaction. It has outcomes once [`Self::want`] is `Ready` or `Closed` again.
    pub fn begin(&mut self, envelope: ClientEnvelope) {
        self.outcomes = None;
        let tls = match self.channel {
            Channel::Clear => None,
            Channel::Tls { verified, .. } => Some(verified),
        };
        let lmtp = self.settings.lmtp;
        let mut transaction = Transaction::new(envelope, &self.offered, lmtp, tls, self.reset);
        if !matches!(self.state, State::Ready) {
            let failure = self.failure.clone();
            let failure =
                failure.unwrap_or_else(|| ConnectionError::Protocol(self.stage(), "not ready"));
            transaction.settle(&failure.outcome());
            self.outcomes = Some(transaction.outcomes());
            return;
        }
        let flow = transaction.advance(&mut self.output);
        self.proceed(Box::new(transaction), flow);
    }

    /// Adds the next piece of the content, as stored.
    pub fn content(&mut self, piece: &[u8]) {
        if let State::Content(transaction) = &mut self.state {
            transaction.content(piece, &mut self.output);
        }
    }

    /// Ends the content. If its length is not the one in the envelope, the transaction is not completed.
    pub fn content_end(&mut self) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Content(mut transaction) => {
                let before = self.output.len();
                let whole = transaction.content_end(&mut self.output);
                self.state = State::End(transaction);
                if !whole {
                    self.output.truncate(before);
                    let why = "the content is not as long as announced".to_owned();
                    self.close(ConnectionError::Lost(Stage::Content, why));
                } else if !self.replies.is_empty() {
                    self.output.clear();
                    self.close(ConnectionError::Protocol(Stage::Content, UNEXPECTED));
                }
            }
            other => self.state = other,
        }
    }

    /// Sends QUIT.
    pub fn quit(&mut self) {
        if matches!(self.state, State::Ready) {
            self.send("QUIT");
            self.state = State::Quit;
        }
    }

    /// Called after the TLS handshake: forgets what was learned before (RFC 3207 §4.2).
    pub fn tls_started(&mut self, exporter: Option<Vec<u8>>, verified: bool) {
        if matches!(self.state, State::Handshake) {
            self.channel = Channel::Tls { exporter, verified };
            self.offered = Extensions::NONE;
            self.hello();
        }
    }

    /// Called when the driver cannot go on: end of the connection, a timeout, a failed handshake.
    pub fn lost(&mut self, failure: ConnectionError) {
        if matches!(self.state, State::Quit) {
            self.state = State::Closed;
        } else if !matches!(self.state, State::Closed) {
            self.close(failure);
        }
    }

    /// Handles input from the server.
    pub fn input(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() && !matches!(self.state, State::Closed) {
            match self.replies.take(&mut octets) {
                Ok(Some(reply)) => {
                    self.count = self.count.wrapping_add(1);
                    self.reply(&reply, octets.is_empty());
                }
                Ok(None) => {}
                Err(why) => self.close(ConnectionError::Protocol(self.stage(), why)),
            }
        }
        if matches!(self.state, State::Handshake) && !self.replies.is_empty() {
            self.close(ConnectionError::Protocol(Stage::StartTls, INJECTED));
        }
    }

    /// Handles one reply; `alone` is true if no input follows it.
    fn reply(&mut self, reply: &RemoteReply, alone: bool) {
        if reply.code() == 421 && !matches!(self.state, State::Quit) {
            return self.service_closing(reply);
        }
        let class = reply.code() / 100;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Greeting if reply.code() == 220 => self.hello(),
            State::Greeting => self.refused(Stage::Greeting, reply),
            State::Hello { helo } => self.hello_reply(reply, helo),
            State::StartTls if reply.code() == 220 && alone => self.state = State::Handshake,
            State::StartTls if reply.code() == 220 => {
                self.close(ConnectionError::Protocol(Stage::StartTls, INJECTED));
            }
            State::StartTls => {
                self.leave(ConnectionError::Tls(format!(
                    "STARTTLS answered by: {}",
                    reply.text()
                )));
            }
            State::Auth(login) => self.auth_reply(login, reply),
            State::Commands(mut transaction) => match transaction.reply(reply, &mut self.output) {
                Ok(flow) => self.proceed(transaction, flow),
                Err(failure) => self.fail(transaction, failure),
            },
            State::End(mut transaction) => match transaction.end_reply(reply) {
                Ok(Flow::More) => self.state = State::End(transaction),
                Ok(flow) => self.proceed(transaction, flow),
                Err(failure) => self.fail(transaction, failure),
            },
            State::EmptyEnd(transaction) => self.proceed(transaction, Flow::Over(true)),
            // A reply before the end of the content: the rest is useless, but cannot be omitted either, so the
            // connection is closed.
            State::Content(mut transaction) if class >= 4 => {
                transaction.settle(&Outcome::of_reply(reply));
                self.fail(
                    transaction,
                    ConnectionError::Refused(Stage::Content, reply.clone()),
                );
            }
            State::Quit | State::Closed => {}
            state @ (State::Content(_) | State::Handshake | State::Ready) => {
                self.state = state;
                self.close(ConnectionError::Protocol(self.stage(), UNEXPECTED));
            }
        }
    }

    /// RFC 5321 §3.8: 421 may be the reply to any command, and may come without one.
    fn service_closing(&mut self, reply: &RemoteReply) {
        self.close(ConnectionError::Refused(self.stage(), reply.clone()));
    }

    fn proceed(&mut self, transaction: Box<Transaction>, flow: Flow) {
        self.state = match flow {
            Flow::More => State::Commands(transaction),
            Flow::Content => State::Content(transaction),
            Flow::EmptyEnd => State::EmptyEnd(transaction),
            Flow::Over(reached_end) => {
                self.reset = !reached_end;
                self.outcomes = Some(transaction.outcomes());
                State::Ready
            }
        };
    }

    fn send(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn hello(&mut self) {
        let verb = if self.settings.lmtp { "LHLO" } else { "EHLO" };
        self.send(&format!("{verb} {}", self.settings.hostname));
        self.state = State::Hello { helo: false };
    }

    fn hello_reply(&mut self, reply: &RemoteReply, helo: bool) {
        match reply.code() {
            200..=299 => {
                if !helo {
                    self.offered = Extensions::parse(reply);
                }
                self.secure();
            }
            500 | 502 if !helo && !self.settings.lmtp => {
                self.send(&format!("HELO {}", self.settings.hostname));
                self.state = State::Hello { helo: true };
            }
            _ => self.refused(Stage::Hello, reply),
        }
    }

    /// Starts TLS if needed, then logs in.
    fn secure(&mut self) {
        let clear = self.channel == Channel::Clear;
        match (self.settings.tls, self.offered.starttls) {
            (TlsUse::Offered | TlsUse::Required, true) if clear => {
                self.send("STARTTLS");
                self.state = State::StartTls;
            }
            (TlsUse::Required, false) if clear => {
                self.leave(ConnectionError::Tls("STARTTLS is not offered".to_owned()));
            }
            _ => self.login(),
        }
    }

    fn login(&mut self) {
        let Some(credentials) = &self.settings.login else {
            self.state = State::Ready;
            return;
        };
        let (tls, exporter) = match &self.channel {
            Channel::Clear => (false, None),
            Channel::Tls { exporter, .. } => (true, exporter.as_deref()),
        };
        let offered = &self.offered.auth;
        let Some(mechanism) = choose(offered, tls, exporter.is_some()) else {
            let why = if tls || offered.is_empty() {
                "no usable mechanism is offered"
            } else {
                "the password is not sent without TLS, and no other mechanism is offered"
            };
            return self.leave(ConnectionError::Auth(why.to_owned()));
        };
        let pair = (credentials.user.as_str(), credentials.password.as_str());
        let nonce = self.settings.nonce.clone();
        let mut login = Box::new(ClientExchange::start(
            mechanism, pair, offered, exporter, nonce,
        ));
        let line = match login.initial() {
            None => format!("AUTH {mechanism}"),
            Some(octets) if octets.is_empty() => format!("AUTH {mechanism} ="),
            Some(octets) => format!("AUTH {mechanism} {}", base64_encode(&octets)),
        };
        self.send(&line);
        self.state = State::Auth(login);
    }

    fn auth_reply(&mut self, mut login: Box<ClientExchange>, reply: &RemoteReply) {
        match reply.code() {
            334 => {
                let text = reply.lines().first().map_or("", String::as_str);
                let step = base64_decode(text.trim().as_bytes())
                    .ok_or("a challenge that is not base64")
                    .and_then(|challenge| login.step(&challenge));
                match step {
                    Ok(response) => {
                        self.send(&base64_encode(&response));
                        self.state = State::Auth(login);
                    }
                    Err(why) => {
                        self.send("*");
                        self.leave(ConnectionError::Auth(why.to_owned()));
                    }
                }
            }
            235 => match login.proven() {
                Ok(()) => self.state = State::Ready,
                Err(why) => self.leave(ConnectionError::Auth(why.to_owned())),
            },
            _ => self.leave(ConnectionError::Auth(reply.text())),
        }
    }

    fn refused(&mut self, stage: Stage, reply: &RemoteReply) {
        self.leave(ConnectionError::Refused(stage, reply.clone()));
    }

    /// Closes a connection on which the server still listens.
    fn leave(&mut self, failure: ConnectionError) {
        self.send("QUIT");
        self.close(failure);
    }

    fn fail(&mut self, transaction: Box<Transaction>, failure: ConnectionError) {
        self.state = State::Commands(transaction);
        self.close(failure);
    }

    /// Ends the connection; recipients without an outcome are deferred.
    fn close(&mut self, failure: ConnectionError) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Commands(mut transaction)
            | State::Content(mut transaction)
            | State::End(mut transaction)
            | State::EmptyEnd(mut transaction) => {
                transaction.settle(&failure.outcome());
                self.outcomes = Some(transaction.outcomes());
            }
            _ => {}
        }
        self.failure = Some(failure);
    }
}
