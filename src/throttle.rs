//! Limits on a client over all its connections: failed logins and messages (`--max-rate`). `rates` counts, the session
//! replies.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::rates::Rates;

/// Maximum failed logins of a client within [`GUESSING`]; then it is blocked until that long after the last one.
const MAX_GUESSES: u32 = 10;
/// The time for which failed logins count.
const GUESSING: Duration = Duration::from_secs(600);

/// Counts by client. A client is defined by [`Client::counted`](crate::conn::client::Client::counted); for failed
/// logins all without an address are one client.
pub struct Throttle {
    guesses: Mutex<Rates<Option<IpAddr>>>,
    messages: Option<Mutex<Rates<Sender>>>,
}

/// The sender whose messages are counted.
#[derive(PartialEq, Eq, Hash)]
enum Sender {
    Client(IpAddr),
    User(String),
}

impl Sender {
    /// After a login the user, from any address. Unix sockets are not limited: their mode controls access.
    fn new(client: Option<IpAddr>, user: Option<&str>) -> Option<Self> {
        let user = user.map(|user| Self::User(user.to_owned()));
        user.or_else(|| client.map(Self::Client))
    }
}

impl Throttle {
    /// Starts counting. `max_rate` is the number of messages of a sender, and in which time.
    pub fn new(max_rate: Option<(u32, Duration)>) -> Self {
        let now = Instant::now();
        let messages = max_rate.map(|(limit, span)| Rates::new(limit, span, now));
        Self {
            guesses: Mutex::new(Rates::new(MAX_GUESSES, GUESSING, now)),
            messages: messages.map(Mutex::new),
        }
    }

    /// True while a client may not log in, after too many failures.
    pub fn is_guessing(&self, client: Option<IpAddr>) -> bool {
        lock(&self.guesses).is_blocked(&client, Instant::now())
    }

    /// Counts a failed login.
    pub fn wrong_login(&self, client: Option<IpAddr>) {
        lock(&self.guesses).add(client, Instant::now());
    }

    /// True while a sender is at its limit.
    pub fn is_used_up(&self, client: Option<IpAddr>, user: Option<&str>) -> bool {
        let sender = || Sender::new(client, user);
        let messages = self.messages.as_ref().zip(sender());
        messages.is_some_and(|(all, sender)| lock(all).is_used_up(&sender, Instant::now()))
    }

    /// Counts a message; false if the sender is at its limit, as after other transactions that ended meanwhile.
    pub fn begin_message(&self, client: Option<IpAddr>, user: Option<&str>) -> bool {
        let Some((messages, sender)) = self.messages.as_ref().zip(Sender::new(client, user)) else {
            return true;
        };
        let (mut all, now) = (lock(messages), Instant::now());
        let allowed = !all.is_used_up(&sender, now);
        if allowed {
            all.add(sender, now);
        }
        allowed
    }

    /// Takes back the count of a message that was not accepted.
    pub fn end_refused(&self, client: Option<IpAddr>, user: Option<&str>) {
        if let Some((messages, sender)) = self.messages.as_ref().zip(Sender::new(client, user)) {
            lock(messages).take_back(&sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_wherever_they_send_from() {
        let throttle = Throttle::new(Some((2, GUESSING)));
        let [a, b] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|octets| Some(IpAddr::from(octets)));
        let send = |throttle: &Throttle, client, user| throttle.begin_message(client, user);
        assert!(send(&throttle, a, Some("alice")) && send(&throttle, b, Some("alice")));
        assert!(!send(&throttle, a, Some("alice")));
        assert!(throttle.is_used_up(a, Some("alice")) && throttle.is_used_up(None, Some("alice")));
        assert!(!throttle.is_used_up(a, None) && !throttle.is_used_up(a, Some("bob")));
        assert!(send(&throttle, a, None) && send(&throttle, a, None));
        throttle.end_refused(a, None);
        assert!(send(&throttle, a, None) && !send(&throttle, a, None));
        assert!(throttle.is_used_up(a, None) && !throttle.is_used_up(b, None));
        assert!((0..9).all(|_| send(&throttle, None, None)));
        assert!(!throttle.is_used_up(None, None), "a Unix socket");
        let unlimited = Throttle::new(None);
        assert!((0..9).all(|_| send(&unlimited, a, None)));
        assert!(!unlimited.is_used_up(a, None));
    }

    #[test]
    fn guesses_are_counted_by_client() {
        let throttle = Throttle::new(None);
        let client = Some(IpAddr::from([127, 0, 0, 1]));
        for _ in 0..MAX_GUESSES {
            assert!(!throttle.is_guessing(client));
            throttle.wrong_login(client);
        }
        assert!(throttle.is_guessing(client) && !throttle.is_guessing(None));
    }
}
