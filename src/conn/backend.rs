//! Answers the session's questions from the directory and the disk.

use std::cell::Cell;
use std::net::IpAddr;

use crate::auth::{Account, Accounts, Decoy};
use crate::clock;
use crate::deliver::{Group, Store, Target};
use crate::directory::{Directory, ResolveContext};
use crate::encoding::base64_encode;
use crate::greylist::{Decision, Keeper, Query};
use crate::oauth::Tokens;
use crate::random;
use crate::relay::{NoTurn, Relay, Wanted};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Backend, Mailboxes, QueueNode};
use crate::throttle::Throttle;

/// The backend of a session.
pub struct ServerBackend<'a> {
    /// Resolves recipients.
    pub directory: &'a Directory,
    /// The keys of OAuth tokens.
    pub tokens: Option<&'a Tokens>,
    /// The disk.
    pub store: &'a Store,
    /// The relay, and true if this client may use it.
    pub relay: Option<(&'a Relay, bool)>,
    /// Recent logins and messages of clients.
    pub throttle: &'a Throttle,
    /// The client, in the form for limits.
    pub client: Option<IpAddr>,
    /// The greylist, if it applies to this client.
    pub greylist: Option<&'a Keeper>,
}

/// A mailbox and its number.
type Numbered<'t> = (u64, &'t Target);

impl ServerBackend<'_> {
    /// The mailboxes of a recipient, and true if the only one is open already.
    fn resolve(&self, to: &ForwardPath, size: u64) -> Result<(Group, bool), Reply> {
        let open = Cell::new(false);
        let is_open = |target: &Target| {
            open.set(self.store.is_open(target));
            open.get()
        };
        let takes = |target: &Target| self.takes(target, size, false).is_ok();
        let relay = self.relay.map(|(relay, _)| relay);
        let onward = |address: &str| relay.and_then(|relay| relay.target(address));
        let context = ResolveContext {
            onward: relay.is_some().then_some(&onward),
            may_relay: self.relay.is_some_and(|(_, may_relay)| may_relay),
            takes: &takes,
            is_open: &is_open,
        };
        let group = self.directory.resolve(to, context)?;
        // The inbox was checked, not the folder.
        let open = open.get() && group.iter().all(|target| target.folder.is_none());
        Ok((group, open))
    }

    fn is_elsewhere(&self, target: &Target) -> bool {
        self.relay.is_some_and(|(relay, _)| relay.is_queue(target))
    }

    fn numbered<'t>(&self, target: &'t Target) -> Numbered<'t> {
        let number = match self.is_elsewhere(target) {
            true => self.directory.address_number(&target.address),
            false => self.directory.mailbox_number(target),
        };
        (number, target)
    }

    /// Checks that a mailbox can take the message; `open` if it is known to be usable.
    fn takes(&self, target: &Target, size: u64, open: bool) -> Result<(), Reply> {
        if self.is_elsewhere(target) {
            return Ok(());
        }
        if !open && !self.store.is_open(target) {
            self.directory.check_usable(target)?;
            self.store.check(target, size)?;
        }
        self.store.quota_check(target, size)
    }

    /// True if the greylist defers a recipient; `look` checks that it could be accepted.
    fn is_deferred(
        &self,
        (from, to): (&ReversePath, &ForwardPath),
        (new, size): (&[Numbered<'_>], u64),
        look: &dyn Fn() -> Result<(), Reply>,
    ) -> Result<bool, Reply> {
        let (Some(greylist), Some(client)) = (self.greylist, self.client) else {
            return look().map(|()| false);
        };
        let mailboxes: Vec<u64> = new.iter().map(|(number, _)| *number).collect();
        let attempt = Query {
            client,
            from: from.as_str(),
            to: to.as_str(),
            mailboxes: &mailboxes,
            size,
            now: clock::seconds(),
        };
        Ok(greylist.check(&attempt, look)? == Decision::Wait)
    }

    /// Checks that mailboxes that are new in the transaction can take the message. A list of which some are full is
    /// deferred, so that no member gets the message twice.
    fn check(
        &self,
        new: &[Numbered<'_>],
        members: usize,
        size: u64,
        open: bool,
    ) -> Result<(), Reply> {
        let mut full = 0;
        for (_, target) in new {
            match self.takes(target, size, open) {
                Err(refusal) if refusal == reply::MAILBOX_FULL => full += 1,
                taken => taken?,
            }
        }
        match full {
            0 => Ok(()),
            _ if full < members => Err(reply::SOME_FULL),
            _ => Err(reply::MAILBOX_FULL),
        }
    }
}

impl Accounts for ServerBackend<'_> {
    fn account(&mut self, login: &str) -> Account {
        self.directory.account(login)
    }

    fn token(&mut self, token: &str, user: Option<&str>) -> Option<String> {
        let claimed = self.tokens?.account(token, clock::seconds());
        let claimed = claimed.inspect_err(|why| log::warn!("token refused: {why}"));
        let account = self.directory.account_name(&claimed.ok()?);
        if account.is_none() {
            log::warn!("token refused: it names no account");
        }
        // The token must name this account.
        account.filter(|account| {
            let named = user.map(|user| self.directory.account_name(user));
            named.is_none_or(|named| named.as_ref() == Some(account))
        })
    }

    fn decoy(&self) -> Decoy {
        self.directory.decoy()
    }

    fn decoy_name(&self, login: &str) -> String {
        self.directory.decoy_name(login)
    }
}

impl Backend for ServerBackend<'_> {
    type Recipient = Group;

    fn recipient(
        &mut self,
        from: &ReversePath,
        to: &ForwardPath,
        size: Option<u64>,
        mailboxes: &mut Mailboxes,
    ) -> Result<Group, Reply> {
        let size = size.unwrap_or(0);
        let (group, open) = self.resolve(to, size)?;
        let list = group.list();
        if list.is_some_and(|list| mailboxes.has_list(list)) {
            mailboxes.set_shared();
            return Ok(group);
        }
        let is_new = |(number, _): &Numbered<'_>| !mailboxes.has(*number);
        // Nearly every recipient has one mailbox and needs no list.
        let (one, many);
        let new: &[Numbered<'_>] = match &group {
            Group::One(target) => {
                one = Some(self.numbered(target)).filter(is_new);
                one.as_slice()
            }
            Group::List(targets) => {
                let numbered = targets.iter().map(|target| self.numbered(target));
                many = numbered.filter(is_new).collect::<Vec<_>>();
                &many
            }
        };
        if mailboxes.count().saturating_add(new.len()) > self.directory.max_recipients() {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let look = || self.check(new, group.len(), size, open);
        if self.is_deferred((from, to), (new, size), &look)? {
            return Err(reply::GREYLISTED);
        }
        if group.iter().any(|target| self.is_elsewhere(target)) {
            mailboxes.set_onward();
        }
        if new.len() < group.len() {
            mailboxes.set_shared();
        }
        mailboxes.add(list, new.iter().map(|(number, _)| *number));
        Ok(group)
    }

    fn is_onward(&self, targets: &Self::Recipient) -> bool {
        targets.iter().all(|target| self.is_elsewhere(target))
    }

    fn is_guessing(&self) -> bool {
        self.throttle.is_guessing(self.client)
    }

    fn is_over_rate(&self, user: Option<&str>) -> bool {
        self.throttle.is_used_up(self.client, user)
    }

    fn room(&mut self, octets: u64) -> Result<(), Reply> {
        if !self.directory.is_without_root() {
            self.store.room(self.directory.root(), octets)?;
        }
        // Remote targets of aliases are open to every client.
        match self.relay {
            Some((relay, _)) => relay.room(octets),
            None => Ok(()),
        }
    }

    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Reply> {
        self.directory.vrfy(name)
    }

    fn expn(&mut self, name: &str) -> Result<Vec<String>, Reply> {
        self.directory.expn(name)
    }

    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        self.directory.may_send_as(user, from)
    }

    fn etrn(&mut self, node: QueueNode<'_>, _user: Option<&str>) -> Reply {
        // Clients that may relay may also use ETRN.
        let Some((relay, true)) = self.relay else {
            return reply::ETRN_REFUSED;
        };
        let wanted = match node {
            QueueNode::Domain(domain) => Wanted::Domain(domain),
            QueueNode::Subdomains(domain) => Wanted::Subdomains(domain),
            QueueNode::Id(id) => Wanted::Id(id),
        };
        match relay.try_now(wanted) {
            Ok(0) => reply::NOTHING_QUEUED,
            Ok(_) => reply::QUEUE_STARTED,
            Err(e) => {
                log::error!("ETRN: {e}");
                reply::CANNOT_START_QUEUE
            }
        }
    }

    fn atrn(&mut self, user: &str, domains: &[&str]) -> Result<(), Reply> {
        let refused = || reply::ATRN_REFUSED;
        let (relay, _) = self.relay.ok_or_else(refused)?;
        relay.claim_turn(user, domains).map_err(|why| match why {
            NoTurn::Refused => refused(),
            NoTurn::NothingWaits => reply::NOTHING_WAITING,
        })
    }

    fn nonce(&mut self) -> String {
        random::octets::<24>().map_or_else(|_| String::new(), |octets| base64_encode(&octets))
    }
}
