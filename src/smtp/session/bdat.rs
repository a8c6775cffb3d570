//! BDAT (RFC 3030): what of a chunk is taken, and that its octets are consumed in any case.

use crate::smtp::cursor::Cursor;
use crate::smtp::reply::{self, Reply};

use super::state::{Phase, Session};
use super::step::{Next, Step, hang_up, say, skip};

impl<R> Session<R> {
    /// RFC 3030 §2: the octets announced are consumed whatever the answer. Without a readable
    /// size the stream is lost, and the connection with it.
    pub(super) fn bdat(&mut self, mut cursor: Cursor<'_>, not_permitted: Option<Reply>) -> Step {
        let digits = cursor.word();
        cursor.spaces();
        let size = digits
            .bytes()
            .all(|o| o.is_ascii_digit())
            .then(|| digits.parse::<u64>().ok())
            .flatten();
        let last = cursor.tag("LAST");
        let (Some(size), true) = (size, cursor.rest().is_empty()) else {
            return hang_up(reply::BAD_ARGUMENT);
        };
        let limit = self.policy.max_size;
        let so_far = if let Phase::Chunks { octets, .. } = &self.phase {
            *octets
        } else {
            0
        };
        let total = so_far.saturating_add(size);
        if total > limit.saturating_mul(2) {
            return hang_up(reply::TOO_MUCH);
        }
        if let Some(refused) = not_permitted {
            return skip(size, refused);
        }
        let refused = match &self.phase {
            Phase::Fresh | Phase::Greeted | Phase::Exchange(_) => {
                return skip(size, reply::BAD_SEQUENCE);
            }
            Phase::Mail(transaction) => match self.ready(transaction) {
                Err(refused) => return skip(size, refused),
                Ok(()) => None,
            },
            Phase::Chunks { refused, .. } => refused.clone(),
        };
        let refused = refused.or_else(|| (total > limit).then_some(reply::TOO_LARGE));
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
            Some(refused) => skip(size, refused),
            None => Step {
                reply: None,
                next: Next::Chunk { size, last },
            },
        }
    }

    /// A chunk that was not the last is in.
    pub fn chunk_received(&mut self) -> Step {
        say(reply::OK.with_text("Chunk received"))
    }
}
