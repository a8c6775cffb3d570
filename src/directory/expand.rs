//! Expands a recipient to mailboxes, following aliases.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::aliases::AliasTarget;
use super::key::AliasKey;
use super::lists::Expansion;
use super::lookup::{Alias, Directory, Found, IsOpen, Lookup};
use crate::deliver::{Group, Target};
use crate::smtp::address::{ForwardPath, Mailbox};
use crate::smtp::reply::{self, Reply};
use crate::warnings::warn;

/// Maximum members of a list to which a subaddress is passed on, because each one's folders must be read and the result
/// is not shared; and steps of the search for them.
const MAX_DETAILED: usize = 16;
const MAX_DETAILED_STEPS: usize = 64;
/// Maximum lists that are reported as too long.
const MAX_NAMED: usize = 10;
/// Maximum steps of the search for lists that are too long.
const MAX_STEPS: usize = 1_000_000;

/// Names and addresses to visit.
enum ToVisit<'a> {
    Name(AliasKey<'a>),
    Remote(&'a str),
}

/// The target for a remote address, if mail can be relayed to it.
pub type Onward<'a> = &'a dyn Fn(&str) -> Option<Target>;

/// What a resolution depends on besides the directory: the relay, and the state of mailboxes.
#[derive(Clone, Copy)]
pub struct ResolveContext<'a> {
    /// The relay, if any; aliases may always use it.
    pub onward: Option<Onward<'a>>,
    /// True if this client may relay.
    pub may_relay: bool,
    /// True if a mailbox could take mail for a postmaster without one.
    pub takes: &'a dyn Fn(&Target) -> bool,
    /// True if a mailbox is open already, so that the disk need not be consulted.
    pub is_open: IsOpen<'a>,
}

/// What a step of [`Directory::walk`] found.
pub(super) enum Visit<'a> {
    Mailbox(Found),
    Remote(&'a str),
    Nobody,
}

impl Directory {
    /// The mailboxes of a forward-path, each once and at least one. Aliases come first; unknown members are skipped as
    /// long as there are others.
    ///
    /// # Errors
    /// 550 if there is none, 551 for a remote alias without a relay, 452 4.5.3 for a list with more members than a
    /// transaction may have, 451 for local errors.
    pub fn resolve(&self, to: &ForwardPath, context: ResolveContext<'_>) -> Result<Group, Reply> {
        let Some(mut key) = self.key(to) else {
            let onward = context.onward.filter(|_| context.may_relay);
            let target = onward.and_then(|onward| onward(to.as_str()));
            let target = target.ok_or(reply::NO_RELAY)?;
            return Ok(Group::One(Arc::new(target)));
        };
        if let ForwardPath::Mailbox(mailbox) = to
            && mailbox.local() != key.spelled()
            && matches!(
                self.lookup_beside(&key, false, context.is_open)?,
                Lookup::Nobody(_)
            )
        {
            // The directory of a mailbox may have the client's spelling.
            key = AliasKey::new(mailbox.local(), key.domain);
        }
        match self.lookup_beside(&key, false, context.is_open)? {
            Lookup::Mailbox(found) => Ok(Group::One(Arc::new(found.target))),
            Lookup::Nobody(_) if key.local == "postmaster" => {
                let target = self.postmaster(key.domain, context.takes)?;
                Ok(Group::One(target))
            }
            Lookup::Nobody(reply) => Err(self.unknown(reply)),
            Lookup::Alias(alias) => {
                match self.expansion(&key, &alias, context.onward) {
                    // Many files of aliases send it to a root that has no mailbox.
                    Err(refusal) if key.local == "postmaster" && refusal == reply::NO_SUCH_USER => {
                        Ok(Group::One(self.postmaster(key.domain, context.takes)?))
                    }
                    group => Ok(self.with_original(group?, &key)),
                }
            }
        }
    }

    /// The mailboxes of an alias, from the cache if a subaddress makes no difference.
    fn expansion(
        &self,
        key: &AliasKey<'_>,
        alias: &Alias<'_, '_>,
        onward: Option<Onward<'_>>,
    ) -> Expansion {
        if alias.detail.is_some() && alias.targets.len() <= MAX_DETAILED {
            let mut steps = MAX_DETAILED_STEPS;
            let found = self.expand(key, &mut steps, onward);
            // Several members without that folder are those of the list.
            let differs = |found: &Vec<(u64, Target)>| match found.len() {
                0..=1 => true,
                members => members <= MAX_DETAILED && found.iter().any(|(_, t)| t.folder.is_some()),
            };
            if steps > 0 && found.as_ref().map_or(true, differs) {
                let shared = |(_, target)| Arc::new(target);
                return found.map(|found| found.into_iter().map(shared).collect());
            }
        }
        let list = AliasKey {
            own: key.own,
            ..AliasKey::new(alias.name, key.domain)
        };
        if let Some(known) = self.lists.get(&list) {
            return known;
        }
        let found = self.expand(&list, &mut usize::MAX.clone(), onward);
        let fixed = (self.users.is_some() || self.creates()) && self.is_fixed(&found);
        self.lists.keep(list, found, fixed)
    }

    /// True if an expansion does not depend on the disk, as folders and errors do.
    fn is_fixed(&self, found: &Result<Vec<(u64, Target)>, Reply>) -> bool {
        let plain = |(_, target): &(u64, Target)| {
            let local = target
                .address
                .rsplit_once('@')
                .map_or("", |(local, _)| local);
            self.split(local).is_none()
        };
        match found {
            Ok(found) => found.iter().all(plain),
            Err(refusal) => refusal.code() != reply::LOCAL_ERROR.code(),
        }
    }

    /// The mailboxes of an alias, each once, with their numbers.
    fn expand(
        &self,
        first: &AliasKey<'_>,
        steps: &mut usize,
        onward: Option<Onward<'_>>,
    ) -> Result<Vec<(u64, Target)>, Reply> {
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        self.walk(first, steps, &mut |key, visit| {
            let (number, target) = match visit {
                Visit::Mailbox(found) => (self.mailbox_number(&found.target), found.target),
                Visit::Remote(address) => (
                    self.address_number(address),
                    remote_target(address, onward)?,
                ),
                Visit::Nobody => {
                    // Without the subaddress, which is the client's.
                    let name = self.split(&key.local).map_or(&*key.local, |(base, _)| base);
                    warn(&format!("alias target missing name={name:?}"));
                    return Ok(true);
                }
            };
            if known.insert(number) {
                found.push((number, target));
            }
            Ok(found.len() <= self.max_recipients)
        })?;
        if found.len() > self.max_recipients {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        if found.is_empty() {
            return Err(self.unknown(reply::NO_SUCH_USER));
        }
        Ok(found)
    }

    /// Visits the expansion of a name without recursion, every name once and in the order of the file, until `visit`
    /// stops it or there are no `steps` left.
    ///
    /// # Errors
    /// Those of `visit`, and 451 for local errors.
    pub(super) fn walk(
        &self,
        first: &AliasKey<'_>,
        steps: &mut usize,
        visit: &mut dyn FnMut(&AliasKey<'_>, Visit<'_>) -> Result<bool, Reply>,
    ) -> Result<(), Reply> {
        let mut seen = HashSet::from([first.clone()]);
        let mut todo = vec![ToVisit::Name(first.clone())];
        while let Some(step) = todo.pop() {
            *steps = steps.saturating_sub(1);
            let key = match step {
                ToVisit::Name(key) if *steps > 0 => key,
                ToVisit::Remote(address) if visit(first, Visit::Remote(address))? => continue,
                ToVisit::Name(_) | ToVisit::Remote(_) => break,
            };
            let more = match self.lookup_or_catch_all(&key, key != *first)? {
                Lookup::Nobody(_) => visit(&key, Visit::Nobody)?,
                Lookup::Mailbox(found) => visit(&key, Visit::Mailbox(found))?,
                Lookup::Alias(Alias { targets, .. }) if targets.len() >= *steps => {
                    *steps = 0;
                    false
                }
                Lookup::Alias(Alias {
                    targets,
                    name,
                    detail,
                }) => {
                    let detail = detail.filter(|_| targets.len() <= MAX_DETAILED);
                    // Pushed in reverse, so that the first one is visited first.
                    for target in targets.iter().rev() {
                        match self.follow((&key, name), target, detail) {
                            ToVisit::Name(next) if !seen.insert(next.clone()) => {}
                            next => todo.push(next),
                        }
                    }
                    true
                }
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Looks up a name; the empty one is the catch-all.
    fn lookup_or_catch_all<'d, 'k>(
        &'d self,
        key: &'k AliasKey<'_>,
        member: bool,
    ) -> Result<Lookup<'d, 'k>, Reply> {
        let catch_all = self.aliases.as_ref().filter(|_| key.local.is_empty());
        match catch_all.and_then(|aliases| aliases.catch_all(key.domain)) {
            Some(targets) => Ok(Lookup::Alias(Alias {
                targets,
                name: "",
                detail: None,
            })),
            None => self.lookup_beside(key, member, &|_| false),
        }
    }

    /// The next step for a target of the alias `name`, by which a name was found.
    fn follow<'a>(
        &self,
        (from, name): (&AliasKey<'_>, &str),
        target: &'a AliasTarget,
        detail: Option<&str>,
    ) -> ToVisit<'a> {
        let (local, at, escaped) = match target {
            AliasTarget::Local(local, at) => (local, at, false),
            AliasTarget::Mailbox(local, at) => (local, at, true),
            AliasTarget::Remote(address) => return ToVisit::Remote(address),
        };
        let domain = at.unwrap_or(from.domain);
        let spelled: Cow<'a, str> = match detail {
            Some(detail) if self.split(local).is_none() => {
                format!("{local}{}{detail}", self.separator()).into()
            }
            _ => local.into(),
        };
        let mut key = AliasKey::new(spelled, domain);
        let same = |name: &str| local.eq_ignore_ascii_case(name);
        // A folder of the name, unless it is an alias itself.
        let base = self.split(local).map(|(base, _)| base);
        let folder = base.is_some_and(|base| base.eq_ignore_ascii_case(name));
        let aliases = self.aliases.as_ref();
        let is_alias = || aliases.is_some_and(|all| all.find(&key.local, domain).is_some());
        let own = same(&from.local) || same(name) || folder && !is_alias();
        key.own = escaped || (own && domain == from.domain);
        ToVisit::Name(key)
    }

    /// Notes the address through which a single mailbox was reached, if it differs.
    fn with_original(&self, group: Group, key: &AliasKey<'_>) -> Group {
        let Group::One(only) = &group else {
            return group;
        };
        let asked = Mailbox::new(key.spelled(), self.domains.name(key.domain)).to_string();
        if only.address.eq_ignore_ascii_case(&asked) {
            return group;
        }
        let target = Target {
            original: Some(asked),
            ..Target::clone(only)
        };
        Group::One(Arc::new(target))
    }

    /// Warns at load about lists that are too long to be used.
    pub(super) fn warn_of_long_lists(&self) {
        let Some(aliases) = &self.aliases else {
            return;
        };
        let mut steps = MAX_STEPS;
        let names = aliases.lists(self.domains.len());
        let long = names.filter(|(name, domain)| {
            let (mut count, limit) = (0, self.max_recipients);
            let first = AliasKey::new(*name, *domain);
            let known = self.walk(&first, &mut steps, &mut |_, visit| {
                count += usize::from(!matches!(visit, Visit::Nobody));
                Ok(count <= limit)
            });
            known.is_ok() && count > limit
        });
        for (name, domain) in long.take(MAX_NAMED) {
            log::warn!(
                "alias {name}@{}: more than --max-recipients {} members, mail for it is refused",
                self.domains.name(domain),
                self.max_recipients
            );
        }
    }
}

/// The target for a remote address, or the refusal if mail cannot be relayed.
fn remote_target(address: &str, onward: Option<Onward<'_>>) -> Result<Target, Reply> {
    match onward {
        Some(onward) => onward(address).ok_or(reply::NO_RELAY),
        None => {
            let text = format!("User not local; please try <{address}>");
            Err(reply::NOT_LOCAL.with_text(text))
        }
    }
}
