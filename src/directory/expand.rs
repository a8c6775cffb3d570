//! From a recipient to the mailboxes that its mail goes to, by way of aliases.

use super::aliases::AliasTarget;
use super::lookup::{AliasKey, Directory, Lookup};
use crate::deliver::Target;
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::{self, Refusal};
use std::collections::HashSet;
use std::sync::Arc;

/// What stands for an address elsewhere, where mail can go on to it.
pub type Onward<'a> = &'a dyn Fn(&str) -> Option<Target>;

impl Directory {
    /// The mailboxes of a forward-path, each once and at least one. Aliases come first; what
    /// they lead to that nobody has is left out as long as somebody is there.
    ///
    /// # Errors
    /// 550 where there is none, 551 where the way leads elsewhere, 451 where it cannot be told.
    pub fn resolve(&self, to: &ForwardPath) -> Result<Vec<Arc<Target>>, Refusal> {
        self.resolve_onward(to, None, false)
    }

    /// The same where mail for elsewhere can go on: aliases may always lead there, and clients may address it where `open`
    /// says so.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_onward(
        &self,
        to: &ForwardPath,
        onward: Option<Onward<'_>>,
        open: bool,
    ) -> Result<Vec<Arc<Target>>, Refusal> {
        let (local, domain) = match to {
            ForwardPath::Postmaster => ("postmaster".to_owned(), 0),
            ForwardPath::Mailbox(mailbox) => {
                let domain = match mailbox.domain() {
                    None => Some(0),
                    Some(name) => self.domains.find_name(name),
                };
                let Some(domain) = domain else {
                    let target = onward
                        .filter(|_| open)
                        .and_then(|onward| onward(mailbox.as_str()));
                    let target = target.ok_or(Refusal::client(reply::NO_RELAY))?;
                    return Ok(vec![Arc::new(target)]);
                };
                (mailbox.local().to_ascii_lowercase(), domain)
            }
        };
        let postmaster = local == "postmaster";
        let targets = self.expand(local, domain, to, onward)?;
        if targets.is_empty() && postmaster {
            return Ok(vec![Arc::new(self.first_mailbox(domain)?)]);
        }
        if targets.is_empty() {
            return Err(self.unknown());
        }
        Ok(targets)
    }

    /// Follows aliases to mailboxes, without recursion: every node is seen once.
    fn expand(
        &self,
        local: String,
        domain: usize,
        original: &ForwardPath,
        onward: Option<Onward<'_>>,
    ) -> Result<Vec<Arc<Target>>, Refusal> {
        let first = AliasKey {
            local,
            domain,
            own: false,
        };
        // Most names are mailboxes, and there is nothing to follow.
        match self.lookup(&first)? {
            Lookup::Mailbox(target) => return Ok(vec![Arc::new(target)]),
            Lookup::Nobody => return Ok(Vec::new()),
            Lookup::Targets(..) => {}
        }
        let mut seen = HashSet::from([first.clone()]);
        let mut todo = vec![first.clone()];
        let mut targets: Vec<Arc<Target>> = Vec::new();
        while let Some(node) = todo.pop() {
            match self.lookup(&node)? {
                Lookup::Nobody => {
                    log::warn!("alias target missing name={:?}", node.local);
                }
                Lookup::Mailbox(mut target) => {
                    target.original = (node != first && !node.own).then(|| original.to_string());
                    let same = |known: &Arc<Target>| {
                        known.maildir == target.maildir && known.folder == target.folder
                    };
                    if !targets.iter().any(same) {
                        targets.push(Arc::new(target));
                    }
                }
                // The last target is pushed first, so that the first one comes first.
                Lookup::Targets(goals, detail) => {
                    for goal in goals.iter().rev() {
                        if let Some(target) = elsewhere(goal, onward) {
                            let mut target = target?;
                            target.original = Some(original.to_string());
                            targets.push(Arc::new(target));
                            continue;
                        }
                        let next = self.follow(&node, goal, detail)?;
                        if seen.insert(next.clone()) {
                            todo.push(next);
                        }
                    }
                }
            }
        }
        Ok(targets)
    }

    /// The node that a target stands for.
    fn follow(
        &self,
        from: &AliasKey,
        target: &AliasTarget,
        detail: Option<&str>,
    ) -> Result<AliasKey, Refusal> {
        let (local, domain) = match target {
            AliasTarget::Local(local, at) => (local, at.unwrap_or(from.domain)),
            AliasTarget::Remote(address) => {
                let text = format!("User not local; please try <{address}>");
                return Err(Refusal::client(reply::NOT_LOCAL.with_text(text)));
            }
        };
        let base = self
            .subaddress(&from.local)
            .map_or(from.local.as_str(), |(base, _)| base);
        let own = (*local == from.local || local == base) && domain == from.domain;
        let local = match detail {
            Some(detail) if self.subaddress(local).is_none() => {
                let separator = self.delimiter.chars().next().unwrap_or('+');
                format!("{local}{separator}{detail}")
            }
            _ => local.clone(),
        };
        Ok(AliasKey { local, domain, own })
    }
}

/// The target of an alias that leads elsewhere, or why there is none; nothing for a local one, or where no mail goes on.
fn elsewhere(goal: &AliasTarget, onward: Option<Onward<'_>>) -> Option<Result<Target, Refusal>> {
    match (goal, onward) {
        (AliasTarget::Remote(address), Some(onward)) => {
            Some(onward(address).ok_or(Refusal::client(reply::NO_RELAY)))
        }
        _ => None,
    }
}
