//! Accounts as the mechanisms ask for them, which the directory answers.

use std::sync::Arc;

use super::decoy::Decoy;
use super::password::Stored;

/// Where accounts are looked up.
pub trait Accounts {
    /// The account a client means by `login`, which is UTF-8 as sent, not empty, without control characters.
    fn account(&mut self, login: &str) -> Account;

    /// The account that a token names, where the token is good; `user` is whom the client names beside it, which must
    /// be the same account. By default there are no tokens.
    fn token(&mut self, _token: &str, _user: Option<&str>) -> Option<String> {
        None
    }

    /// Hears which account a client tries, as it spelled it; for the log, also where it is not looked up.
    fn tried(&mut self, _login: &[u8]) {}

    /// What unknown users are given in place of an account. The default costs and looks as a password hashed by
    /// [`hash_password`](super::password::hash_password) does.
    fn decoy(&self) -> Decoy {
        Decoy::default()
    }
}

/// The answer to a look-up.
#[derive(Clone, Debug)]
pub enum Account {
    /// There is one.
    Known {
        /// The name to log and to return, whatever the client's spelling was.
        user: String,
        /// What its password is checked with.
        stored: Arc<Stored>,
    },
    /// There is none.
    Unknown,
}
