//! All waits for a client and their ends: by `--timeout`, by the minimum rate of content, earlier under stress, and at
//! a shutdown.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::driver::{Conn, Stop};
use super::floor::WINDOW;
use crate::state::under_stress;

impl Conn<'_> {
    /// Waits for more input. The wait began at `since`, or begins now; returns when that was.
    pub(super) fn wait(&mut self, since: Option<Instant>) -> Result<Instant, Stop> {
        if self.state.stopping.load(Ordering::SeqCst) && !self.live.is_busy() {
            return Err(Stop::Shutdown);
        }
        let begun = Instant::now();
        let since = since.unwrap_or(begun);
        let (until, short) = self.ends(since, begun);
        if until.is_some_and(|until| until <= begun) || self.state.is_stressed() && short <= begun {
            return Err(Stop::TimedOut);
        }
        self.live.begin_wait(until, short);
        let filled = self.stream.fill(since + self.state.timeout);
        self.live.end_wait();
        if let Some(floor) = &mut self.floor {
            floor.waited(begun.elapsed());
        }
        match filled {
            Ok(octets) if octets > 0 => Ok(since),
            _ if self.live.expired() => Err(Stop::TimedOut),
            _ if self.state.stopping.load(Ordering::SeqCst) => Err(Stop::Shutdown),
            Ok(_) => Err(Stop::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// The ends of a wait that began at `since` and continues at `begun`: by the minimum rate of content, and under
    /// stress. For a command, stress also ends a connection that has brought no message for a whole timeout: legal
    /// commands now and then would keep a place for hours.
    fn ends(&self, since: Instant, begun: Instant) -> (Option<Instant>, Instant) {
        let short = since + under_stress(self.state.timeout);
        let Some(floor) = &self.floor else {
            return (None, short.min(self.useful + self.state.timeout));
        };
        let least = under_stress(WINDOW.min(self.state.timeout));
        let until = begun + floor.time_left(WINDOW);
        (Some(until), short.min(begun + floor.time_left(least)))
    }

    /// Sends pending replies; the wait began at `since`.
    pub(super) fn flush(&mut self, since: Instant) -> io::Result<()> {
        self.live
            .begin_wait(None, since + under_stress(self.state.timeout));
        let sent = self.stream.flush(since + self.state.timeout);
        self.live.end_wait();
        match sent {
            Err(_) if self.live.expired() => Err(ErrorKind::TimedOut.into()),
            sent => sent,
        }
    }
}
