//! AUTH (RFC 4954): when it may be used, base64, and the reply to each outcome. The mechanisms themselves are in
//! `auth`.

use super::backend::Backend;
use super::state::{Channel, MAX_AUTH_LINE, Phase, Session};
use super::step::{Step, close, say};
use crate::auth::{Account, Accounts, Decoy, Exchange, ExchangeContext, Mechanism, Progress};
use crate::encoding::{base64_decode, base64_encode};
use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Reply};

/// Failed logins after which the reply is 421.
const MAX_WRONG_LOGINS: u32 = 3;
/// Maximum octets of a challenge in base64 (RFC 4954 §4).
const MAX_CHALLENGE: usize = MAX_AUTH_LINE - "334 \r\n".len();

impl<R> Session<R> {
    /// The mechanisms that can be used now, as EHLO lists them.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        let tls = matches!(self.channel, Channel::Tls { .. });
        let clear = self.policy.insecure_auth && !self.policy.require_tls;
        if self.user().is_some() || !(tls || clear) {
            return Vec::new();
        }
        let bound = matches!(&self.channel, Channel::Tls { exporter: Some(_) });
        let all = self.policy.mechanisms.iter().copied();
        all.filter(|&mechanism| mechanism != Mechanism::ScramSha256Plus || bound)
            .collect()
    }

    /// RFC 4954 §4.
    pub(super) fn auth(
        &mut self,
        mut cursor: Cursor<'_>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        if cursor.rest().is_empty() {
            return Err(reply::MISSING_ARGUMENT);
        }
        if self.transaction().is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        if self.user().is_some() {
            return Err(reply::ALREADY_LOGGED_IN);
        }
        if self.channel == Channel::Clear && !self.policy.insecure_auth {
            return Err(reply::AUTH_NEEDS_TLS);
        }
        if backend.is_guessing() {
            return Err(reply::TOO_MUCH_GUESSING);
        }
        let offered = self.mechanisms();
        let mechanism = Mechanism::parse(cursor.word()).filter(|m| offered.contains(m));
        let mechanism = mechanism.ok_or(reply::NO_SUCH_MECHANISM)?;
        self.mechanism = Some(mechanism);
        cursor.spaces();
        let initial = match cursor.rest() {
            "" => None,
            _ if mechanism.server_first() => return Err(reply::NO_INITIAL_RESPONSE),
            "=" => Some(Vec::new()),
            coded => Some(base64_decode(coded.as_bytes()).ok_or(reply::BAD_RESPONSE)?),
        };

        let exporter = match &self.channel {
            Channel::Tls { exporter } => exporter.as_deref(),
            Channel::Clear => None,
        };
        let context = ExchangeContext {
            hostname: &self.policy.hostname,
            exporter,
            plus_offered: offered.contains(&Mechanism::ScramSha256Plus),
            nonce: backend.nonce(),
        };
        let exchange = Exchange::start(mechanism, &context);
        if exchange.is_over() {
            return Err(reply::LOCAL_ERROR);
        }
        self.tried_account = None;
        Ok(self.proceed(Box::new(exchange), initial.as_deref(), backend))
    }

    /// A line within an exchange.
    pub(super) fn response(
        &mut self,
        line: &[u8],
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Greeted) else {
            // This is only called within an exchange.
            return say(reply::UNKNOWN_COMMAND);
        };
        if exchange.is_over() {
            // The response to the challenge that said why a token failed (RFC 7628 §3.2.3).
            return self.failed();
        }
        if line == b"*" {
            return say(reply::AUTH_CANCELLED);
        }
        match base64_decode(line) {
            Some(response) => self.proceed(exchange, Some(&response), backend),
            None => say(reply::BAD_RESPONSE),
        }
    }

    /// An overlong AUTH line ends only the exchange.
    pub(super) fn long_auth_line(&mut self) -> Step {
        if matches!(self.phase, Phase::Exchange(_)) {
            self.phase = Phase::Greeted;
        }
        say(reply::AUTH_LINE_TOO_LONG)
    }

    fn proceed(
        &mut self,
        mut exchange: Box<Exchange>,
        response: Option<&[u8]>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Step {
        // Other connections of this client may have reached the limit in the meantime; from then on right and wrong
        // passwords get the same reply.
        if backend.is_guessing() {
            return say(reply::TOO_MUCH_GUESSING);
        }
        let mut noting = Noting {
            accounts: backend,
            tried: None,
        };
        let progress = exchange.step(response, &mut noting);
        if let Some(tried) = noting.tried {
            self.tried_account = Some(tried);
        }
        match progress {
            _ if backend.is_guessing() => say(reply::TOO_MUCH_GUESSING),
            Progress::Challenge(challenge) => {
                let challenge = base64_encode(&challenge);
                if challenge.len() > MAX_CHALLENGE {
                    // It repeats what the client sent.
                    return say(reply::AUTH_LINE_TOO_LONG);
                }
                self.phase = Phase::Exchange(exchange);
                say(reply::CHALLENGE.with_text(challenge))
            }
            Progress::Done { user } => {
                self.user = Some(user);
                self.ended_login = Some(true);
                say(reply::LOGGED_IN)
            }
            Progress::Malformed => say(reply::BAD_RESPONSE),
            Progress::Failed => {
                self.count_wrong_login();
                self.failed()
            }
            Progress::Rejected(why) => {
                self.count_wrong_login();
                self.phase = Phase::Exchange(exchange);
                say(reply::CHALLENGE.with_text(base64_encode(&why)))
            }
        }
    }

    const fn count_wrong_login(&mut self) {
        self.wrong_logins += 1;
        self.ended_login = Some(false);
    }

    /// The reply to a failed login.
    const fn failed(&self) -> Step {
        if self.wrong_logins >= MAX_WRONG_LOGINS {
            close(reply::TOO_MANY_WRONG_LOGINS)
        } else {
            say(reply::WRONG_CREDENTIALS)
        }
    }

    /// The account that the last AUTH tried, as the client spelled it; for the log.
    pub fn tried_account(&self) -> Option<&str> {
        self.tried_account.as_deref()
    }

    /// Failed logins on this connection.
    pub const fn wrong_logins(&self) -> u32 {
        self.wrong_logins
    }
}

/// The backend's accounts, noting which one was tried.
struct Noting<'a, A> {
    accounts: &'a mut A,
    tried: Option<String>,
}

impl<A: Accounts> Accounts for Noting<'_, A> {
    fn account(&mut self, login: &str) -> Account {
        self.accounts.account(login)
    }

    fn token(&mut self, token: &str, user: Option<&str>) -> Option<String> {
        self.accounts.token(token, user)
    }

    fn tried(&mut self, login: &[u8]) {
        self.tried = Some(String::from_utf8_lossy(login).into_owned());
    }

    fn decoy(&self) -> Decoy {
        self.accounts.decoy()
    }

    fn decoy_name(&self, login: &str) -> String {
        self.accounts.decoy_name(login)
    }
}
