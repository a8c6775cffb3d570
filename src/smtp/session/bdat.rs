//! BDAT (RFC 3030): which chunks are accepted. The announced octets are always consumed.

use super::state::{Phase, Session};
use super::step::{Next, Step, close, say, skip};
use crate::encoding::number;
use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Reply};

impl<R> Session<R> {
    /// RFC 3030 §2: the announced octets are consumed even if the command is refused. With an unreadable size they
    /// cannot be found, so the connection is closed.
    pub(super) fn bdat(&mut self, argument: &str, not_permitted: Option<Reply>) -> Step {
        let Some((size, last)) = chunk(argument) else {
            return close(reply::BAD_CHUNK_SIZE);
        };
        let so_far = match &self.phase {
            Phase::Chunks { octets, .. } => *octets,
            _ => 0,
        };
        let total = so_far.saturating_add(size);
        if total > self.policy.max_size.saturating_mul(2) {
            return close(reply::CHUNK_FAR_TOO_LARGE);
        }
        if size == 0
            && !last
            && let Some(last) = self.noise()
        {
            return last;
        }
        match not_permitted.or_else(|| self.no_message_yet()) {
            Some(refused) => skip(size, refused, 1),
            None => self.take_chunk(size, last, total),
        }
    }

    /// The reason why no content is possible now.
    fn no_message_yet(&self) -> Option<Reply> {
        match &self.phase {
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => Some(reply::MAIL_FIRST),
            Phase::Mail(transaction) => self.ready(transaction).err(),
            Phase::Chunks { .. } => None,
        }
    }

    /// Accepts a chunk, or refuses it because of its size or an earlier refusal.
    fn take_chunk(&mut self, size: u64, last: bool, total: u64) -> Step {
        let earlier = match &self.phase {
            Phase::Chunks { refused, .. } => refused.clone(),
            _ => None,
        };
        let too_large = total > self.policy.max_size;
        let refused = earlier.or_else(|| too_large.then_some(reply::TOO_LARGE));
        let recipients = self.transaction().map(|t| t.recipients.len());
        let times = recipients.filter(|_| last && self.is_lmtp()).unwrap_or(1);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Greeted) {
            Phase::Mail(transaction) | Phase::Chunks { transaction, .. }
                if !(last && refused.is_some()) =>
            {
                Phase::Chunks {
                    transaction,
                    octets: total,
                    refused: refused.clone(),
                }
            }
            _ => Phase::Greeted,
        };
        match refused {
            Some(refused) => skip(size, refused, times),
            None => Step {
                reply: None,
                next: Next::Chunk { size, last },
            },
        }
    }

    /// Called after a chunk that was not the last.
    pub fn chunk_received(&mut self) -> Step {
        say(reply::CHUNK_RECEIVED)
    }
}

/// `size [LAST]`.
fn chunk(argument: &str) -> Option<(u64, bool)> {
    let mut cursor = Cursor::new(argument);
    let digits = cursor.word();
    cursor.spaces();
    let last = cursor.tag("LAST");
    let size = number(digits).filter(|_| cursor.rest().is_empty())?;
    Some((size, last))
}
