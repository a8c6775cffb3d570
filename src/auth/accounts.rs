//! The mechanisms' view of accounts; the directory implements it.

use std::sync::Arc;

use super::decoy::Decoy;
use super::password::Stored;

/// Account look-up.
pub trait Accounts {
    /// Looks up an account. `login` is the name as sent: UTF-8, not empty, without control characters.
    fn account(&mut self, login: &str) -> Account;

    /// The account that a valid token names; if the client names a `user` as well, it must be the same account. By
    /// default no token is valid.
    fn token(&mut self, _token: &str, _user: Option<&str>) -> Option<String> {
        None
    }

    /// Called with the account name that a client tries, as it spelled it, for the log; also if it is not looked up.
    fn tried(&mut self, _login: &[u8]) {}

    /// Replaces the account of unknown users. The default costs and looks like a password hashed by
    /// [`hash_password`](super::password::hash_password).
    fn decoy(&self) -> Decoy {
        Decoy::default()
    }

    /// The name from which a decoy is made for a login: logins that would reach one account, if there was one, share
    /// it, and others do not. By default case is ignored.
    fn decoy_name(&self, login: &str) -> String {
        login.to_ascii_lowercase()
    }
}

/// The result of a look-up.
#[derive(Clone, Debug)]
pub enum Account {
    /// The account exists.
    Known {
        /// The account's own name, whatever the client's spelling.
        user: String,
        /// The stored password.
        stored: Arc<Stored>,
    },
    /// The account does not exist.
    Unknown,
}
