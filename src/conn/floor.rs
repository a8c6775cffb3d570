//! The minimum rate of a message: 100 octets a second over any window of waiting, including silence. The window is a
//! minute, and shorter under stress. Callers report how long they waited for the client, so that a slow disk is not
//! counted against it. There is no clock here.

use std::collections::VecDeque;
use std::time::Duration;

/// The window of a message.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Octets in [`WINDOW`]; a shorter window needs its share.
const FLOOR: u64 = 6_000;
/// Arrivals within this time are counted as one, which bounds memory.
const GRAIN: Duration = Duration::from_millis(250);

/// The octets of the last minute of waiting.
#[derive(Debug, Default)]
pub(super) struct Floor {
    /// Total time spent waiting for the client since the message began.
    waited: Duration,
    /// Times and numbers of octets, no more than are needed for the minimum.
    arrivals: VecDeque<(Duration, u64)>,
    sum: u64,
}

impl Floor {
    /// How long to wait for the client now, with the minimum over `window`; zero if it is too slow.
    pub(super) fn time_left(&self, window: Duration) -> Duration {
        (self.since(window) + window).saturating_sub(self.waited)
    }

    /// The time since which a window's octets have arrived, or the beginning if there are too few.
    fn since(&self, window: Duration) -> Duration {
        let mut missing = u128::from(FLOOR) * window.as_millis() / WINDOW.as_millis();
        for (arrived, octets) in self.arrivals.iter().rev() {
            missing = missing.saturating_sub((*octets).into());
            if missing == 0 {
                return *arrived;
            }
        }
        Duration::ZERO
    }

    /// Adds time spent waiting for the client.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Adds octets of content.
    pub(super) fn arrived(&mut self, octets: u64) {
        if octets == 0 {
            return;
        }
        self.sum += octets;
        match self.arrivals.back_mut() {
            Some((arrived, count)) if self.waited.saturating_sub(*arrived) < GRAIN => {
                *count += octets;
            }
            _ => self.arrivals.push_back((self.waited, octets)),
        }
        while let Some((_, oldest)) = self.arrivals.front()
            && self.sum - oldest >= FLOOR
        {
            self.sum -= oldest;
            self.arrivals.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alternates waits and arrivals; returns how many seconds were allowed.
    fn lasts(steps: impl IntoIterator<Item = (u64, u64)>) -> u64 {
        lasts_under(60, steps)
    }

    /// The same with a different window.
    fn lasts_under(window: u64, steps: impl IntoIterator<Item = (u64, u64)>) -> u64 {
        let mut floor = Floor::default();
        let mut total = 0;
        for (seconds, octets) in steps {
            let left = floor.time_left(Duration::from_secs(window)).as_secs();
            if left < seconds {
                return total + left;
            }
            floor.waited(Duration::from_secs(seconds));
            floor.arrived(octets);
            total += seconds;
        }
        u64::MAX
    }

    #[test]
    fn the_minimum_rate_holds_over_any_minute() {
        let forever = |seconds, octets| std::iter::repeat_n((seconds, octets), 1_000);
        // Fast enough, with pieces of any size.
        for (seconds, octets) in [(1, 101), (10, 1_010), (59, 6_000), (0, 1), (1, 65_536)] {
            assert_eq!(
                lasts(forever(seconds, octets)),
                u64::MAX,
                "{seconds} {octets}"
            );
        }
        // Silence, a trickle, one octet in fifteen seconds, much before each minute of nothing.
        assert_eq!(lasts([(61, 1)]), 60);
        assert_eq!(lasts(forever(1, 90)), 60);
        assert_eq!(lasts(forever(15, 1)), 60);
        assert_eq!(lasts([(1, 6_000_000), (61, 1)]), 61);
        assert_eq!(lasts([(1, 6_000_000), (59, 5_000), (2, 5_000)]), 61);
        assert_eq!(lasts([(50, 6_000), (50, 5_999), (11, 6_000)]), 110);
    }

    /// A shorter window needs its share, and forgets earlier octets sooner.
    #[test]
    fn a_shorter_window_asks_sooner() {
        let forever = |seconds, octets| std::iter::repeat_n((seconds, octets), 1_000);
        for (seconds, octets) in [(1, 120), (5, 600), (0, 1)] {
            assert_eq!(lasts_under(6, forever(seconds, octets)), u64::MAX);
        }
        assert_eq!(lasts_under(6, [(7, 1)]), 6);
        assert_eq!(lasts_under(6, forever(1, 90)), 6);
        assert_eq!(lasts_under(6, [(1, 6_000_000), (7, 1)]), 7);
        // What lasts a minute otherwise.
        assert_eq!(lasts_under(6, forever(30, 5_900)), 6);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut floor = Floor::default();
        for octets in std::iter::repeat_n(1, 100_000) {
            floor.arrived(octets);
            floor.waited(Duration::from_millis(5));
        }
        assert!(floor.arrivals.len() <= 241, "{}", floor.arrivals.len());
    }
}
