//! Answers the session's questions, out of the directory and the disk.

use crate::auth::{Account, Accounts};
use crate::deliver::{Group, Store};
use crate::directory::Directory;
use crate::encoding::base64_encode;
use crate::relay::Relay;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::Refusal;
use crate::smtp::session::Backend;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The directory and the disk as a session asks them.
pub struct ServerBackend<'a> {
    /// Who has which mailbox.
    pub directory: &'a Directory,
    /// The disk.
    pub store: &'a Store,
    /// Where mail for elsewhere goes, and whether this client may send it.
    pub relay: Option<(&'a Relay, bool)>,
}

impl Accounts for ServerBackend<'_> {
    fn account(&mut self, login: &str) -> Account {
        self.directory.account(login)
    }
}

impl Backend for ServerBackend<'_> {
    type Recipient = Group;

    fn recipient(
        &mut self,
        to: &ForwardPath,
        size: Option<u64>,
    ) -> Result<Self::Recipient, Refusal> {
        let targets = match self.relay {
            None => self.directory.resolve(to)?,
            Some((relay, open)) => {
                let onward = |address: &str| relay.target(address);
                self.directory.resolve_onward(to, Some(&onward), open)?
            }
        };
        for target in &targets {
            self.store.quota_check(target, size.unwrap_or(0))?;
        }
        Ok(targets.into())
    }

    fn is_onward(&self, targets: &Self::Recipient) -> bool {
        let relay = self.relay.map(|(relay, _)| relay);
        relay.is_some_and(|relay| targets.iter().all(|target| relay.is_queue(target)))
    }

    fn is_exempt(&self) -> bool {
        self.relay.is_some_and(|(_, open)| open)
    }

    fn room(&mut self, octets: u64) -> Result<(), Refusal> {
        self.store.room(self.directory.root(), octets)
    }

    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.vrfy(name)
    }

    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.expn(name)
    }

    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        self.directory.may_send_as(user, from)
    }

    fn nonce(&mut self) -> String {
        let mut octets = [0; 24];
        // Without randomness the challenge is empty, and no mechanism takes that.
        match SystemRandom::new().fill(&mut octets) {
            Ok(()) => base64_encode(&octets),
            Err(_) => String::new(),
        }
    }
}
