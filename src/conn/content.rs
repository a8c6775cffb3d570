//! Reads content from the stream into a message: DATA up to the lone dot, chunks of BDAT, and octets to drop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::driver::{Conn, Ended, Incoming, LINGER, Stop};
use super::floor::Floor;
use super::message::{ClientTrace, Message, MessageOutcome};
use crate::maillog;
use crate::smtp::body::Decoded;
use crate::smtp::policy::Service;
use crate::smtp::reply::Reply;
use crate::smtp::session::Next;

impl Conn<'_> {
    /// Called when a message begins or continues with another chunk. At a shutdown a current message may finish, but
    /// none may begin.
    pub(super) fn begin_content(&mut self) -> Result<(), Stop> {
        if self.floor.is_none() {
            self.live.set_busy(true);
            if self.state.stopping.load(Ordering::SeqCst) {
                self.live.set_busy(false);
                return Err(Stop::Shutdown);
            }
            self.floor = Some(Floor::default());
        }
        Ok(())
    }

    /// Called when the message is over, or was abandoned.
    pub(super) fn end_content(&mut self) {
        if self.floor.take().is_some() {
            self.chunked = None;
            self.live.set_busy(false);
        }
    }

    /// Reads DATA up to the lone dot.
    #[inline(never)]
    pub(super) fn data(&mut self) -> Result<Option<Ended>, Stop> {
        let begun = Instant::now();
        let mut message = Message::data(&self.session, &self.state.store, self.origin());
        let refused = self.body(|input| match message.feed(input)? {
            Decoded::More => Ok((input.len(), false)),
            Decoded::End { used } => Ok((used, true)),
        })?;
        Ok(match refused {
            Some(refused) => Some(self.close(refused)),
            None => self.conclude(Incoming { message, begun }),
        })
    }

    /// Reads one chunk of BDAT.
    #[inline(never)]
    pub(super) fn chunk(&mut self, size: u64, last: bool) -> Result<Option<Ended>, Stop> {
        let mut incoming = self.chunked.take().unwrap_or_else(|| {
            Box::new(Incoming {
                message: Message::chunked(&self.session, &self.state.store, self.origin()),
                begun: Instant::now(),
            })
        });
        let refused = self.octets(size, |octets| incoming.message.feed(octets).map(|_| ()))?;
        if let Some(refused) = refused {
            return Ok(Some(self.close(refused)));
        }
        if last {
            return Ok(self.conclude(*incoming));
        }
        self.chunked = Some(incoming);
        let step = self.session.chunk_received();
        self.say(step.reply.as_ref());
        Ok(None)
    }

    /// Drops the octets of a refused chunk, then sends the refusal.
    pub(super) fn skip(
        &mut self,
        size: u64,
        refusal: &Reply,
        times: usize,
    ) -> Result<Option<Ended>, Stop> {
        let within = self.floor.is_some();
        if !within {
            self.floor = Some(Floor::default());
        }
        self.octets(size, |_| Ok(()))?;
        if !within {
            self.floor = None;
        }
        for _ in 0..times {
            self.say(Some(refusal));
        }
        Ok(None)
    }

    fn close(&mut self, last: Reply) -> Ended {
        self.say(Some(&last));
        Ended::Close(last)
    }

    /// Reads and passes on exactly `size` octets.
    fn octets(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Reply>,
    ) -> Result<Option<Reply>, Stop> {
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

    /// Feeds input to `take` until it reports the end of the content, or refuses it.
    fn body(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(usize, bool), Reply>,
    ) -> Result<Option<Reply>, Stop> {
        let mut large = false;
        let outcome = loop {
            match take(self.stream.input()) {
                Err(refused) => break Some(refused),
                Ok((used, over)) => {
                    self.stream.consume(used);
                    if let Some(floor) = &mut self.floor {
                        floor.arrived(used as u64);
                    }
                    if over {
                        break None;
                    }
                }
            }
            // Content that arrived with its command needs no larger buffer.
            if !large {
                self.stream.body_mode(true);
                large = true;
            }
            self.wait(None)?;
        };
        if large {
            self.stream.body_mode(false);
        }
        Ok(outcome)
    }

    /// Ends a message with one reply, or on LMTP one for each recipient.
    #[inline(never)]
    fn conclude(&mut self, incoming: Incoming) -> Option<Ended> {
        let commit = self.state.metrics.is_on().then(Instant::now);
        let (throttle, client) = (&self.state.throttle, self.client.counted());
        let allowed = throttle.begin_message(client, self.session.user());
        let relay = self.state.relay.get().map(Arc::as_ref);
        let outcome = incoming.message.finish(&self.session, relay, !allowed);
        if let Some(begun) = commit.filter(|_| outcome.id.is_some()) {
            self.count(&outcome, begun.elapsed());
        }
        if outcome.replies.iter().any(|reply| !reply.is_error()) {
            self.messages += 1;
            self.useful = Instant::now();
        } else if allowed {
            throttle.end_refused(client, self.session.user());
        }
        self.log_message(&outcome, incoming.begun);
        let (replies, next) = self.session.finish(outcome.replies);
        for reply in &replies {
            self.say(Some(reply));
        }
        self.end_content();
        self.sweep();
        if let Some(notice) = outcome.notice {
            // The replies do not depend on the report.
            let _ = self.stream.flush(Instant::now() + LINGER);
            notice.send(self.state);
        }
        let last = replies.into_iter().next_back();
        last.filter(|_| next == Next::Close).map(Ended::Close)
    }

    /// Updates the metrics.
    fn count(&self, outcome: &MessageOutcome, took: Duration) {
        let service = self.session.policy().service;
        let accepted = outcome.replies.iter().filter(|reply| !reply.is_error());
        let recipients = match (accepted.count(), self.session.transaction()) {
            (1.., Some(transaction)) if service != Service::Lmtp => transaction.recipients.len(),
            (accepted, _) => accepted,
        };
        let metrics = &self.state.metrics;
        metrics.message(service.name(), recipients, outcome.size, took);
    }

    /// Housekeeping after the reply, so that no client waits for it.
    fn sweep(&mut self) {
        if self.state.store.sweep_due() {
            // If the client has gone, the next read will fail.
            let _ = self.stream.flush(Instant::now() + LINGER);
            self.state.store.sweep();
        }
    }

    fn log_message(&self, outcome: &MessageOutcome, begun: Instant) {
        if log::log_enabled!(log::Level::Info) {
            let id = outcome.id.as_deref().unwrap_or("none");
            let (who, took) = (self.who(), begun.elapsed());
            maillog::message(
                id,
                &who,
                &self.session,
                &outcome.replies,
                outcome.size,
                took,
            );
        }
    }

    fn origin(&self) -> ClientTrace<'_> {
        ClientTrace {
            peer: self.client.trace_name(),
            auth_header: self.state.auth_header,
        }
    }
}
