//! MAIL, RCPT and DATA: each a column of refusals in the order of its RFC, and then the effect.

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::cursor::Cursor;
use crate::smtp::params::{BodyType, MailParams, no_parameters};
use crate::smtp::policy::Service;
use crate::smtp::reply::{self, Reply};

use super::backend::Backend;
use super::state::{Channel, Phase, Session};
use super::step::{Next, Step, say};
use super::transaction::Transaction;

impl<R> Session<R> {
    /// RFC 5321 §4.1.1.2.
    pub(super) fn mail(
        &mut self,
        mut cursor: Cursor<'_>,
        backend: &mut impl Backend<Recipient = R>,
    ) -> Result<Step, Reply> {
        if !matches!(self.phase, Phase::Greeted) {
            return Err(reply::BAD_SEQUENCE);
        }
        if !cursor.tag("FROM:") {
            return Err(reply::BAD_SENDER_SYNTAX);
        }
        cursor.spaces();
        let reverse_path = ReversePath::parse(&mut cursor).ok_or(reply::BAD_SENDER_SYNTAX)?;
        let params = MailParams::parse(&mut cursor)?;
        if params.size.is_some_and(|size| size > self.policy.max_size) {
            return Err(reply::TOO_LARGE);
        }
        if !params.smtputf8 && !reverse_path.is_ascii() {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        if params.requiretls && self.channel == Channel::Clear {
            // Offered inside TLS only (RFC 8689 §3).
            return Err(reply::UNKNOWN_PARAMETER);
        }
        let user = self.user().filter(|_| self.policy.auth_sender);
        if user.is_some_and(|user| !backend.may_send_as(user, &reverse_path)) {
            return Err(reply::NOT_YOURS);
        }
        backend
            .room(params.size.unwrap_or(0))
            .map_err(|refusal| refusal.reply)?;

        self.phase = Phase::Mail(Transaction {
            reverse_path,
            params,
            recipients: Vec::new(),
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
        let Phase::Mail(transaction) = &mut self.phase else {
            return Err(reply::BAD_SEQUENCE);
        };
        transaction.tried = true;
        if !cursor.tag("TO:") {
            return Err(reply::BAD_RECIPIENT_SYNTAX);
        }
        cursor.spaces();
        let to = ForwardPath::parse(&mut cursor).ok_or(reply::BAD_RECIPIENT_SYNTAX)?;
        no_parameters(&mut cursor)?;
        if !transaction.params.smtputf8 && !to.is_ascii() {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        if transaction.recipients.len() >= self.policy.max_recipients {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let size = transaction.params.size;
        let recipient = backend
            .recipient(&to, size)
            .map_err(|refusal| refusal.reply)?;

        transaction.recipients.push((to, recipient));
        Ok(say(reply::RECIPIENT_OK))
    }

    /// RFC 5321 §4.1.1.4.
    pub(super) fn data(&self) -> Result<Step, Reply> {
        let Phase::Mail(transaction) = &self.phase else {
            return Err(reply::BAD_SEQUENCE);
        };
        self.ready(transaction)?;
        if transaction.params.body == Some(BodyType::Binary) {
            return Err(reply::BAD_SEQUENCE);
        }
        Ok(Step {
            reply: Some(reply::START_DATA),
            next: Next::Data,
        })
    }

    /// Whether a transaction may take a message (RFC 5321 §3.3, RFC 2033 §4.2).
    pub(super) fn ready(&self, transaction: &Transaction<R>) -> Result<(), Reply> {
        let lmtp = self.policy.service == Service::Lmtp;
        match (transaction.recipients.is_empty(), transaction.tried) {
            (false, _) => Ok(()),
            (true, true) if !lmtp => Err(reply::NO_RECIPIENTS),
            (true, _) => Err(reply::BAD_SEQUENCE),
        }
    }
}
