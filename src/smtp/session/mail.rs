//! MAIL, RCPT and DATA: each checks for refusals in the order of its RFC, and then takes effect.

use super::backend::Backend;
use super::state::{Channel, Phase, Session};
use super::step::{Next, Step, say};
use super::transaction::{AcceptedRecipient, Mailboxes, Transaction};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::cursor::Cursor;
use crate::smtp::params::{BodyType, MailParams, RcptParams};
use crate::smtp::policy::Service;
use crate::smtp::reply::{self, Reply};

impl<R> Session<R> {
    /// RFC 5321 §4.1.1.2.
    pub(super) fn mail(
        &mut self,
        mut cursor: Cursor<'_>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        if self.transaction().is_some() {
            return Err(reply::NESTED_MAIL);
        }
        let parse = match self.policy.bare_address {
            true => ReversePath::parse_bare,
            false => ReversePath::parse,
        };
        let reverse_path = path(&mut cursor, "FROM:", parse).ok_or(reply::BAD_SENDER_SYNTAX)?;
        let params = MailParams::parse(&mut cursor)?;
        if params.size.is_some_and(|size| size > self.policy.max_size) {
            return Err(reply::TOO_LARGE);
        }
        if !params.smtputf8 && !reverse_path.is_ascii() {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        if params.requiretls && self.channel == Channel::Clear {
            // Only offered inside TLS (RFC 8689 §3).
            return Err(reply::UNKNOWN_PARAMETER);
        }
        let user = self.user().filter(|_| self.policy.auth_sender);
        if user.is_some_and(|user| !backend.may_send_as(user, &reverse_path)) {
            return Err(reply::NOT_YOURS);
        }
        if backend.is_over_rate(self.user()) {
            return Err(reply::RATE_LIMITED);
        }
        backend.room(params.size.unwrap_or(0))?;

        self.phase = Phase::Mail(Transaction {
            reverse_path,
            params,
            recipients: Vec::new(),
            mailboxes: Mailboxes::default(),
            tried: false,
        });
        Ok(say(reply::SENDER_OK))
    }

    /// RFC 5321 §4.1.1.3.
    pub(super) fn rcpt(
        &mut self,
        mut cursor: Cursor<'_>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        let transaction = match &mut self.phase {
            Phase::Mail(transaction) => transaction,
            Phase::Chunks { .. } => return Err(reply::IN_CHUNKS),
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => return Err(reply::MAIL_FIRST),
        };
        transaction.tried = true;
        let parse = match self.policy.bare_address {
            true => ForwardPath::parse_bare,
            false => ForwardPath::parse,
        };
        let path = path(&mut cursor, "TO:", parse).ok_or(reply::BAD_RECIPIENT_SYNTAX)?;
        let params = RcptParams::parse(&mut cursor)?;
        let ascii = path.is_ascii() && params.orcpt.as_deref().is_none_or(str::is_ascii);
        if !transaction.params.smtputf8 && !ascii {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        let most = self.policy.max_recipients.min(self.max_recipients);
        if transaction.recipients.len() >= most {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let MailParams { size, smtputf8, .. } = transaction.params;
        let mailboxes = backend
            .recipient(
                &transaction.reverse_path,
                &path,
                size,
                &mut transaction.mailboxes,
            )
            .map_err(|refusal| readable(refusal, smtputf8))?;

        let accepted = if backend.is_onward(&mailboxes) {
            reply::FORWARDED
        } else {
            reply::RECIPIENT_OK
        };
        transaction.recipients.push(AcceptedRecipient {
            path,
            params,
            mailboxes,
        });
        Ok(say(accepted))
    }

    /// RFC 5321 §4.1.1.4.
    pub(super) fn data(&self) -> Result<Step, Reply> {
        let transaction = match &self.phase {
            Phase::Mail(transaction) => transaction,
            Phase::Chunks { .. } => return Err(reply::IN_CHUNKS),
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => return Err(reply::MAIL_FIRST),
        };
        self.ready(transaction)?;
        if transaction.params.body == Some(BodyType::Binary) {
            return Err(reply::BDAT_REQUIRED);
        }
        Ok(Step {
            reply: Some(reply::START_DATA),
            next: Next::Data,
        })
    }

    /// Checks that the transaction has a recipient (RFC 5321 §3.3, RFC 2033 §4.2).
    pub(super) fn ready(&self, transaction: &Transaction<R>) -> Result<(), Reply> {
        let lmtp = self.policy.service == Service::Lmtp;
        match (transaction.recipients.is_empty(), transaction.tried) {
            (false, _) => Ok(()),
            (true, true) if !lmtp => Err(reply::NO_RECIPIENTS),
            (true, _) => Err(reply::RCPT_FIRST),
        }
    }
}

/// The keyword before a path, and the path up to the end of its word.
fn path<P>(
    cursor: &mut Cursor<'_>,
    keyword: &str,
    parse: impl FnOnce(&mut Cursor<'_>) -> Option<P>,
) -> Option<P> {
    if !cursor.tag(keyword) {
        return None;
    }
    cursor.spaces();
    parse(cursor).filter(|_| cursor.at_word_end())
}

/// A refusal with what the client can read (RFC 6531 §3.7.4.2). With its octets replaced, the address in a 551 would be
/// another one.
fn readable(refusal: Reply, smtputf8: bool) -> Reply {
    match (smtputf8, refusal.text().is_ascii()) {
        (true, _) => refusal.in_utf8(),
        (false, true) => refusal,
        (false, false) => reply::NOT_LOCAL,
    }
}
