//! Accounts for the tests of all mechanisms: `tim` with the password `tanstaaftanstaaf`, `user` with `pencil`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use super::accounts::{Account, Accounts};
use super::exchange::Exchange;
use super::machine::{ExchangeContext, Progress};
use super::mechanism::Mechanism;
use super::password::Stored;

pub(super) struct Book(pub(super) Vec<(&'static str, Arc<Stored>)>);

impl Book {
    pub(super) fn new() -> Self {
        Self::of(&[
            ("tim", "{PLAIN}tanstaaftanstaaf"),
            ("user", "{PLAIN}pencil"),
        ])
    }

    pub(super) fn of(entries: &[(&'static str, &str)]) -> Self {
        let entries = entries.iter();
        Self(
            entries
                .map(|(name, form)| (*name, Arc::new(Stored::parse(form).unwrap())))
                .collect(),
        )
    }
}

impl Accounts for Book {
    fn account(&mut self, login: &str) -> Account {
        match self.0.iter().find(|(name, _)| *name == login) {
            Some((name, stored)) => Account::Known {
                user: format!("{name}@example.org"),
                stored: Arc::clone(stored),
            },
            None => Account::Unknown,
        }
    }

    fn token(&mut self, token: &str, user: Option<&str>) -> Option<String> {
        let account = token.strip_prefix("token-of-")?;
        let (name, _) = self.0.iter().find(|(name, _)| *name == account)?;
        let same = user.is_none_or(|user| user == *name);
        same.then(|| format!("{name}@example.org"))
    }
}

pub(super) fn context(nonce: &str) -> ExchangeContext<'_> {
    ExchangeContext {
        hostname: "postoffice.reston.mci.net",
        exporter: None,
        plus_offered: false,
        nonce: nonce.to_owned(),
    }
}

pub(super) fn start(mechanism: Mechanism) -> Exchange {
    Exchange::start(mechanism, &context("1896.697170952"))
}

pub(super) fn done(name: &str) -> Progress {
    let user = format!("{name}@example.org");
    Progress::Done { user }
}

pub(super) fn challenge(text: &str) -> Progress {
    Progress::Challenge(text.as_bytes().to_vec())
}
