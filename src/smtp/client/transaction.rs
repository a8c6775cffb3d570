//! One transaction from the client's side: MAIL, RCPT and DATA or BDAT go out, pipelined where that is offered, and the
//! replies are matched to them in order. Every recipient ends with an [`Outcome`].

use std::collections::VecDeque;

use super::encode::Encoder;
use super::envelope::ClientEnvelope;
use super::extensions::Extensions;
use super::outcome::{ConnectionError, Outcome, Stage, Verdict};
use super::reply::RemoteReply;
use super::status::Status;

/// Maximum commands without a reply: few enough that the replies fit into socket buffers (RFC 2920 §3.1).
const WINDOW: usize = 100;

/// A reply to a command that was not sent, or before the end of the content was.
pub(super) const UNEXPECTED: &str = "an unexpected reply";

/// A command to be sent, or one whose reply is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planned {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
}

/// The next step after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// More replies.
    More,
    /// The content.
    Content,
    /// The reply to the end of a message without recipients.
    EmptyEnd,
    /// Nothing: every recipient has its outcome. True if the end of the message was reached.
    Over(bool),
}

/// A transaction in progress.
#[derive(Debug)]
pub(super) struct Transaction {
    envelope: ClientEnvelope,
    offered: Extensions,
    lmtp: bool,
    plan: VecDeque<Planned>,
    awaited: VecDeque<Planned>,
    outcomes: Vec<Option<Outcome>>,
    /// Recipients that the server accepted, in the order of their commands.
    accepted: VecDeque<usize>,
    /// MAIL was refused.
    refused: bool,
    /// A recipient was accepted although MAIL was refused.
    stray: bool,
    encoder: Encoder,
}

impl Transaction {
    /// Plans the commands. A message or recipient that cannot be sent to this server gets its outcome at once. `tls` is
    /// true in TLS with a verified server, false in other TLS.
    pub(super) fn new(
        mut envelope: ClientEnvelope,
        offered: &Extensions,
        lmtp: bool,
        tls: Option<bool>,
        reset: bool,
    ) -> Self {
        let private = tls == Some(true) && offered.requiretls;
        let unfit = envelope.unfit(offered, private);
        // A report goes without verified TLS, too, but says what its message wants (RFC 8689 §5).
        envelope.requiretls &= tls.is_some() && offered.requiretls;
        let most = offered.rcpt_max.unwrap_or(usize::MAX);
        let mut plan = VecDeque::new();
        let mut planned = 0;
        let outcomes = envelope.recipients.iter().enumerate().map(|(place, rcpt)| {
            let refusal = unfit.clone().or_else(|| rcpt.unfit(offered));
            if refusal.is_some() {
                return refusal;
            }
            if planned >= most {
                return Some(too_many());
            }
            planned += 1;
            plan.push_back(Planned::Rcpt(place));
            None
        });
        let outcomes = outcomes.collect();
        if !plan.is_empty() {
            plan.push_front(Planned::Mail);
            if reset {
                plan.push_front(Planned::Reset);
            }
            if !offered.chunking {
                plan.push_back(Planned::Data);
            }
        }
        Self {
            encoder: Encoder::new(!offered.chunking, envelope.content.exact_from),
            envelope,
            offered: offered.clone(),
            lmtp,
            plan,
            awaited: VecDeque::new(),
            outcomes,
            accepted: VecDeque::new(),
            refused: false,
            stray: false,
        }
    }

    /// The stage of the next reply.
    pub(super) fn stage(&self) -> Stage {
        match self.awaited.front() {
            Some(Planned::Reset) => Stage::Reset,
            Some(Planned::Mail) => Stage::Mail,
            Some(Planned::Rcpt(_)) => Stage::Rcpt,
            Some(Planned::Data) | None => Stage::Data,
        }
    }

    /// Sends what may be sent now; returns the next step if no reply is expected.
    pub(super) fn advance(&mut self, out: &mut Vec<u8>) -> Flow {
        while let Some(&step) = self.plan.front() {
            let room = if self.offered.pipelining {
                self.awaited.len() < WINDOW
            } else {
                self.awaited.is_empty()
            };
            if !room {
                return Flow::More;
            }
            self.plan.pop_front();
            let nobody = self.awaited.is_empty() && self.accepted.is_empty();
            let line = match step {
                Planned::Data if nobody => continue,
                Planned::Reset => "RSET".to_owned(),
                Planned::Mail => self.envelope.mail(&self.offered),
                Planned::Rcpt(place) => match self.envelope.rcpt(place, &self.offered) {
                    Some(line) => line,
                    None => continue,
                },
                Planned::Data => "DATA".to_owned(),
            };
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
            self.awaited.push_back(step);
        }
        if !self.awaited.is_empty() {
            return Flow::More;
        }
        if self.accepted.is_empty() {
            return Flow::Over(false);
        }
        // DATA continues after its 354, so only BDAT gets here.
        let line = format!("BDAT {} LAST\r\n", self.envelope.content.wire);
        out.extend_from_slice(line.as_bytes());
        Flow::Content
    }

    /// Handles the reply to the oldest command.
    ///
    /// # Errors
    /// An unexpected reply, or RSET refused.
    pub(super) fn reply(
        &mut self,
        reply: &RemoteReply,
        out: &mut Vec<u8>,
    ) -> Result<Flow, ConnectionError> {
        let stage = self.stage();
        let Some(step) = self.awaited.pop_front() else {
            return Err(ConnectionError::Protocol(stage, UNEXPECTED));
        };
        let class = reply.code() / 100;
        if class == 3 && step != Planned::Data {
            return Err(ConnectionError::Protocol(stage, "a 3xx reply out of place"));
        }
        match step {
            Planned::Reset if class != 2 => {
                return Err(ConnectionError::Refused(stage, reply.clone()));
            }
            Planned::Reset => {}
            Planned::Mail if class != 2 => {
                self.refused = true;
                self.plan.clear();
                self.settle(&Outcome::of_reply(reply));
            }
            Planned::Mail => {}
            Planned::Rcpt(_) if self.refused => self.stray |= class == 2,
            Planned::Rcpt(place) if class == 2 => self.accepted.push_back(place),
            Planned::Rcpt(place) => {
                let outcome = self.refused_recipient(reply);
                if let Some(slot) = self.outcomes.get_mut(place) {
                    *slot = Some(outcome);
                }
            }
            Planned::Data => return self.data_reply(reply, out),
        }
        Ok(self.advance(out))
    }

    /// Handles the reply to DATA. If it is 354 without any recipient, the message is empty (RFC 2920 §3.1).
    fn data_reply(
        &mut self,
        reply: &RemoteReply,
        out: &mut Vec<u8>,
    ) -> Result<Flow, ConnectionError> {
        match (reply.code(), self.accepted.is_empty()) {
            (354, true) if self.stray => {
                let why = "recipients accepted although MAIL was refused";
                Err(ConnectionError::Protocol(Stage::Data, why))
            }
            (354, true) => {
                out.extend_from_slice(b".\r\n");
                Ok(Flow::EmptyEnd)
            }
            (354, false) => Ok(Flow::Content),
            (200..=399, _) => Err(ConnectionError::Protocol(
                Stage::Data,
                "neither 354 nor a refusal",
            )),
            _ => {
                self.settle(&Outcome::of_reply(reply));
                Ok(Flow::Over(false))
            }
        }
    }

    /// RFC 5321 §4.5.3.1.10: 452, formerly 552, may mean too many recipients. The rest gets another transaction if this
    /// one has a recipient.
    fn refused_recipient(&self, reply: &RemoteReply) -> Outcome {
        let outcome = Outcome::of_reply(reply);
        let many = match reply.code() {
            452 | 552 if !reply.has_status() => true,
            _ => (outcome.status.subject, outcome.status.detail) == (5, 3),
        };
        let verdict = match (many, self.accepted.is_empty()) {
            (true, false) => Verdict::NextTransaction,
            (true, true) => Verdict::Later,
            (false, _) => outcome.verdict,
        };
        // A report of a delay has no permanent status (RFC 3464 §2.3.4).
        let class = match verdict {
            Verdict::Later => 4,
            _ => outcome.status.class,
        };
        let status = Status {
            class,
            ..outcome.status
        };
        Outcome {
            verdict,
            status,
            ..outcome
        }
    }

    /// Adds the next piece of the content.
    pub(super) fn content(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.encoder.feed(piece, out);
    }

    /// Ends the content; false if its length is not the announced one.
    pub(super) fn content_end(&mut self, out: &mut Vec<u8>) -> bool {
        self.encoder.finish(out);
        self.encoder.sent() == self.envelope.content.wire
    }

    /// Handles a reply to the end of the message; LMTP sends one for each recipient (RFC 2033 §4.2).
    ///
    /// # Errors
    /// A 3xx reply.
    pub(super) fn end_reply(&mut self, reply: &RemoteReply) -> Result<Flow, ConnectionError> {
        if reply.code() / 100 == 3 {
            return Err(ConnectionError::Protocol(
                Stage::End,
                "a 3xx reply out of place",
            ));
        }
        let outcome = Outcome::of_reply(reply);
        if !self.lmtp {
            self.settle(&outcome);
            return Ok(Flow::Over(true));
        }
        let place = self.accepted.pop_front();
        if let Some(slot) = place.and_then(|place| self.outcomes.get_mut(place)) {
            *slot = Some(outcome);
        }
        Ok(if self.accepted.is_empty() {
            Flow::Over(true)
        } else {
            Flow::More
        })
    }

    /// Sets the outcome of every recipient that has none.
    pub(super) fn settle(&mut self, outcome: &Outcome) {
        for slot in &mut self.outcomes {
            slot.get_or_insert_with(|| outcome.clone());
        }
        self.accepted.clear();
    }

    /// The outcomes, in the order of the recipients.
    pub(super) fn outcomes(self) -> Vec<Outcome> {
        let unsettled = || {
            let status = Status::new(4, 5, 0);
            Outcome::local(Verdict::Later, status, "The transaction was not finished")
        };
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(unsettled))
            .collect()
    }
}

fn too_many() -> Outcome {
    let status = Status::new(4, 5, 3);
    Outcome::local(
        Verdict::NextTransaction,
        status,
        "More recipients than the next hop accepts at once",
    )
}
