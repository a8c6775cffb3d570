//! The exchanges of AUTH, and stored passwords.

use std::sync::Arc;

use mailslot::auth::{Account, Accounts, Exchange, ExchangeContext, MECHANISMS, Progress, Stored};

use super::first;

struct Alice(Arc<Stored>);

impl Accounts for Alice {
    fn account(&mut self, login: &str) -> Account {
        assert!(!login.contains(char::is_control), "{login:?}");
        Account::Known {
            user: login.to_owned(),
            stored: Arc::clone(&self.0),
        }
    }
}

/// Responses, one a line, to the mechanism that the first octet picks. No guessed proof is ever accepted.
pub fn login(octets: &[u8]) {
    let (pick, input) = first(octets);
    let mut accounts = Alice(Arc::new(
        Stored::parse("{PLAIN}a password that no input has").unwrap(),
    ));
    let context = ExchangeContext {
        hostname: "mx.example.org",
        exporter: (pick & 128 != 0).then_some(b"binding".as_slice()),
        plus_offered: pick & 64 != 0,
        nonce: "nonce".to_owned(),
    };
    let mechanism = MECHANISMS[pick % MECHANISMS.len()];
    let mut exchange = Exchange::start(mechanism, &context);
    for response in input.split(|&octet| octet == b'\n') {
        match exchange.step(Some(response), &mut accounts) {
            Progress::Challenge(challenge) => assert!(challenge.len() < 4096),
            Progress::Done { user } => panic!("{user} is in"),
            _ => return,
        }
    }
}

/// A stored password of any form; the hashes of great cost are left out.
pub fn password(octets: &[u8]) {
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = Stored::parse(text);
    }
}
