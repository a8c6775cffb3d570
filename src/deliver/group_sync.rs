//! Shares the sync of a directory among all sessions that wait for one. A sync that begins after a message got its name
//! makes that name durable, whoever called it. So when several sessions deliver to one mailbox, one syncs `new/`, and
//! the others wait for the next sync, which serves them all. A lone caller syncs at once.
//!
//! A sync that began before a name existed does not count for it. A system reports a failed write to one sync only, and
//! the next one succeeds although the data is lost. So everyone who changed the directory before a failed sync ended
//! gets the error, even if it asks for its own sync later; [`Ticket`] keeps track of that.
//!
//! Measured on ext4 (4 KiB messages, two cores, in threads that do nothing else): 50 sessions to one mailbox make
//! 10,000 messages a second instead of 5,000, ten make 6,400 instead of 4,500, each with half the CPU time, and one
//! makes as many as before. Waking only those that a sync served, and one more to call the next, was not faster.

use std::io;
use std::sync::{Condvar, Mutex};

use nix::errno::Errno;

use super::disk::errno;
use crate::lock::{lock, wait};

/// The syncs of one directory.
#[derive(Default)]
pub struct GroupSync {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    /// The numbers of the last sync that began and of the last one that ended; they differ while one is running.
    begun: usize,
    ended: usize,
    waiting: usize,
    /// The number of failures, and the last error.
    failures: usize,
    failed: Option<Errno>,
}

/// Taken before the directory is changed: later failures count for the change. The default is before the first sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    failures: usize,
}

impl GroupSync {
    /// Must be called before the change that is to be synced.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            failures: lock(&self.state).failures,
        }
    }

    /// True if any sync failed.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.state).failures > 0
    }

    /// Calls `sync`, or waits for a call by another thread that begins after this one.
    ///
    /// # Errors
    /// The error of the last sync that failed since the ticket was taken. Some get it unnecessarily and undo a good
    /// change.
    pub fn sync(&self, ticket: Ticket, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = lock(&self.state);
        let wanted = state.begun.wrapping_add(1);
        while state.begun != state.ended {
            state.waiting += 1;
            state = wait(&self.over, &self.state, state);
            state.waiting -= 1;
            state.check(ticket)?;
            if state.ended.wrapping_sub(wanted) < usize::MAX / 2 {
                return Ok(());
            }
        }
        state.check(ticket)?;
        state.begun = state.begun.wrapping_add(1);
        drop(state);
        let mut turn = RunningSync {
            syncs: self,
            failed: Some(Errno::EIO),
        };
        let outcome = sync();
        turn.failed = outcome
            .as_ref()
            .err()
            .map(|e| errno(e).unwrap_or(Errno::EIO));
        outcome
    }
}

impl State {
    fn check(&self, ticket: Ticket) -> io::Result<()> {
        match self.failed {
            Some(errno) if self.failures != ticket.failures => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

/// A running sync, which ends for its waiters even if it panics.
struct RunningSync<'a> {
    syncs: &'a GroupSync,
    failed: Option<Errno>,
}

impl Drop for RunningSync<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.syncs.state);
        state.ended = state.begun;
        if let Some(errno) = self.failed {
            state.failures = state.failures.wrapping_add(1);
            state.failed = Some(errno);
        }
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.syncs.over.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    fn waiting(syncs: &GroupSync, count: usize) {
        while lock(&syncs.state).waiting != count {
            std::thread::yield_now();
        }
    }

    /// While a sync is running, all others wait for the next one.
    #[test]
    fn one_more_sync_serves_all_waiters() {
        for fault in [None, Some(Errno::EIO)] {
            let syncs = Arc::new(GroupSync::default());
            let calls = Arc::new(AtomicUsize::new(0));
            let (open, gate) = mpsc::channel::<()>();
            let first = {
                let (syncs, calls) = (Arc::clone(&syncs), Arc::clone(&calls));
                std::thread::spawn(move || {
                    syncs.sync(syncs.ticket(), || {
                        calls.fetch_add(1, Ordering::SeqCst);
                        let _ = gate.recv();
                        Ok(())
                    })
                })
            };
            while calls.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let others: Vec<_> = (0..8)
                .map(|_| {
                    let (syncs, calls) = (Arc::clone(&syncs), Arc::clone(&calls));
                    std::thread::spawn(move || {
                        syncs.sync(syncs.ticket(), || {
                            calls.fetch_add(1, Ordering::SeqCst);
                            fault.map_or(Ok(()), |errno| Err(errno.into()))
                        })
                    })
                })
                .collect();
            waiting(&syncs, 8);
            drop(open);
            assert!(first.join().unwrap().is_ok());
            for other in others {
                assert_eq!(other.join().unwrap().is_ok(), fault.is_none());
            }
            assert_eq!(calls.load(Ordering::SeqCst), 2);
            assert!(
                syncs.sync(syncs.ticket(), || Ok(())).is_ok(),
                "a failure is reported once"
            );
        }
    }

    /// A failed sync may have covered the names of waiters, and of threads that have not asked yet, although the next
    /// one on the same descriptor would succeed.
    #[test]
    fn a_failure_counts_for_all_who_came_before_its_end() {
        let syncs = Arc::new(GroupSync::default());
        let (begun, began) = mpsc::channel();
        let (open, opened) = mpsc::channel::<()>();
        let first = {
            let syncs = Arc::clone(&syncs);
            std::thread::spawn(move || {
                syncs.sync(syncs.ticket(), || {
                    begun.send(()).unwrap();
                    let _ = opened.recv();
                    Err(Errno::EIO.into())
                })
            })
        };
        began.recv().unwrap();
        let late = syncs.ticket();
        let other = {
            let syncs = Arc::clone(&syncs);
            std::thread::spawn(move || syncs.sync(syncs.ticket(), || Ok(())))
        };
        waiting(&syncs, 1);
        drop(open);
        assert!(first.join().unwrap().is_err() && other.join().unwrap().is_err());
        assert!(syncs.sync(late, || Ok(())).is_err(), "named before the end");
        assert!(syncs.sync(syncs.ticket(), || Ok(())).is_ok(), "named later");
    }

    /// Every caller is served by a sync that began after its call, and nobody waits for ever.
    #[test]
    fn a_sync_serves_only_those_before_it() {
        let syncs = GroupSync::default();
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let before = begun.load(Ordering::SeqCst);
                        let synced = syncs.sync(syncs.ticket(), || {
                            begun.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            ended.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        });
                        assert!(synced.is_ok() && ended.load(Ordering::SeqCst) > before);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_keeps_nobody_waiting() {
        let syncs = GroupSync::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            syncs.sync(syncs.ticket(), || std::panic::resume_unwind(Box::new(())))
        }));
        assert!(panicked.is_err());
        assert!(syncs.sync(syncs.ticket(), || Ok(())).is_ok());
    }
}
