//! Aliases: the file of aliases(5), `name: target, target`, where a line that begins with white space continues the one
//! before. `name@domain:` applies to one domain and takes precedence over `name:`; `@domain:` is the domain's
//! catch-all. Targets are addresses: commands, files and includes are refused. A name among its own targets, or one
//! after a backslash, means the mailbox of that name.

use std::collections::HashMap;
use std::path::Path;

use super::composition::composed;
use super::domains::Domains;
use super::names::domain_key;
use crate::failure::FileError;
use crate::smtp::address::ForwardPath;

/// The target of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AliasTarget {
    /// A local name as written, because folders keep their case; without a domain it is at that of the alias.
    Local(String, Option<usize>),
    /// Written with a backslash: the mailbox of a local name, even if an alias has that name.
    Mailbox(String, Option<usize>),
    /// A remote address.
    Remote(String),
}

/// The aliases.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    everywhere: HashMap<String, Rule>,
    at: Vec<HashMap<String, Rule>>,
    catch_all: Vec<Option<Rule>>,
}

#[derive(Debug)]
struct Rule {
    targets: Vec<AliasTarget>,
    line: usize,
}

impl Aliases {
    pub(super) fn load(path: &Path, domains: &Domains) -> Result<Self, FileError> {
        let text = FileError::read(path)?;
        let mut aliases = Self {
            at: (0..domains.len()).map(|_| HashMap::new()).collect(),
            catch_all: (0..domains.len()).map(|_| None).collect(),
            ..Self::default()
        };
        for (number, line) in logical_lines(&text) {
            let fault = |reason: String| FileError::new(path, Some(number), reason);
            let (name, targets) = split(&line, ':')
                .ok_or_else(|| fault("no 'name: target' on this line".to_owned()))?;
            let targets = parse_targets(targets, domains).map_err(fault)?;
            let rule = Rule {
                targets,
                line: number,
            };
            aliases.add(name.trim(), rule, domains).map_err(fault)?;
        }
        aliases
            .check_loops(domains.len())
            .map_err(|(line, reason)| FileError::new(path, Some(line), reason))?;
        Ok(aliases)
    }

    fn add(&mut self, name: &str, rule: Rule, domains: &Domains) -> Result<(), String> {
        let (local, domain) = match split_domain(name) {
            (local, Some(domain)) => {
                let domain = domain.strip_suffix('.').unwrap_or(domain);
                let at = domains.find(&domain_key(domain));
                let at = at.ok_or_else(|| format!("'{domain}' is not delivered here"))?;
                (unquote(local), Some(at))
            }
            (local, None) => (unquote(local), None),
        };
        if local == "*" {
            let reason = "'*' is not a name; a catch-all is written @domain:";
            return Err(reason.to_owned());
        }
        let local = composed(&local.to_ascii_lowercase()).into_owned();
        let before = match (local.as_str(), domain) {
            ("", None) => return Err("an alias needs a name".to_owned()),
            ("", Some(at)) => self
                .catch_all
                .get_mut(at)
                .and_then(|slot| slot.replace(rule)),
            (_, Some(at)) => self.at.get_mut(at).and_then(|map| map.insert(local, rule)),
            (_, None) => self.everywhere.insert(local, rule),
        };
        match before {
            Some(before) => Err(format!(
                "'{name}' is listed twice, first in line {}",
                before.line
            )),
            None => Ok(()),
        }
    }

    /// The number of aliases.
    pub(super) fn len(&self) -> usize {
        let at: usize = self.at.iter().map(HashMap::len).sum();
        self.everywhere.len() + at + self.catch_all.iter().flatten().count()
    }

    /// The targets of a name at a domain.
    pub(super) fn find(&self, local: &str, domain: usize) -> Option<&[AliasTarget]> {
        self.rule(local, domain).map(|rule| rule.targets.as_slice())
    }

    /// The targets of a domain's catch-all.
    pub(super) fn catch_all(&self, domain: usize) -> Option<&[AliasTarget]> {
        let rule = self.catch_all.get(domain)?.as_ref()?;
        Some(&rule.targets)
    }

    /// Aliases with several targets, each with a domain that it applies to; a catch-all has an empty name.
    pub(super) fn lists(&self, domains: usize) -> impl Iterator<Item = (&str, usize)> {
        let everywhere = self.everywhere.iter().map(|(name, rule)| (name, rule, 0));
        let at = self.at.iter().take(domains).enumerate();
        let at = at.flat_map(|(at, map)| map.iter().map(move |(name, rule)| (name, rule, at)));
        let named = everywhere.chain(at);
        let named = named.map(|(name, rule, at)| (name.as_str(), rule, at));
        let catch_all = self.catch_all.iter().enumerate();
        let catch_all = catch_all.filter_map(|(at, rule)| Some(("", rule.as_ref()?, at)));
        let lists = named.chain(catch_all);
        lists.filter_map(|(name, rule, at)| (rule.targets.len() > 1).then_some((name, at)))
    }

    /// A name as it is found: the one of an alias in lower case.
    fn key<'a>(&'a self, local: &'a str, domain: usize) -> &'a str {
        let lower = local.to_ascii_lowercase();
        let own = self
            .at
            .get(domain)
            .and_then(|map| map.get_key_value(&lower));
        let found = own.or_else(|| self.everywhere.get_key_value(&lower));
        found.map_or(local, |(key, _)| key)
    }

    fn rule(&self, local: &str, domain: usize) -> Option<&Rule> {
        let own = self.at.get(domain).and_then(|map| map.get(local));
        own.or_else(|| self.everywhere.get(local))
    }

    /// Looks for loops by walking every chain once, with an explicit stack so that long chains cannot overflow the
    /// thread's. Loops through subaddresses and catch-alls pass a name that is not an alias, where resolution stops.
    fn check_loops(&self, domains: usize) -> Result<(), (usize, String)> {
        #[derive(PartialEq)]
        enum Mark {
            Open,
            Done,
        }
        let mut marks: HashMap<(&str, usize), Mark> = HashMap::new();
        for domain in 0..domains {
            let own = self.at.get(domain).into_iter().flatten();
            // In the order of the file, so that the same fault is always reported.
            let mut starts: Vec<(&String, &Rule)> = self.everywhere.iter().chain(own).collect();
            starts.sort_unstable_by_key(|(name, rule)| (rule.line, *name));
            for start in starts.into_iter().map(|(name, _)| name.as_str()) {
                let mut stack = vec![((start, domain), 0_usize)];
                while let Some((node, next)) = stack.pop() {
                    let Some(rule) = self.rule(node.0, node.1) else {
                        continue;
                    };
                    if next == 0 {
                        if marks.get(&node) == Some(&Mark::Done) {
                            continue;
                        }
                        if marks.insert(node, Mark::Open) == Some(Mark::Open) {
                            let reason = format!("'{}' is part of a loop", node.0);
                            return Err((rule.line, reason));
                        }
                    }
                    match rule.targets.get(next) {
                        None => {
                            marks.insert(node, Mark::Done);
                        }
                        Some(target) => {
                            stack.push((node, next + 1));
                            if let AliasTarget::Local(local, at) = target {
                                let domain = at.unwrap_or(node.1);
                                let target = (self.key(local, domain), domain);
                                if target != node {
                                    stack.push((target, 0));
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Logical lines with the number of their first line, without comments and blank lines.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (at, raw) in text.lines().enumerate() {
        let line = raw.trim_end();
        if line.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => lines.push((at + 1, line.to_owned())),
        }
    }
    lines
}

/// Splits at the first `at` outside quotes.
fn split(text: &str, at: char) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    let found = text.find(|c: char| {
        match (c, escaped) {
            (_, true) => escaped = false,
            ('\\', false) => escaped = quoted,
            ('"', false) => quoted = !quoted,
            _ => return c == at && !quoted,
        }
        false
    })?;
    let (head, tail) = text.split_at_checked(found)?;
    Some((head, tail.strip_prefix(at)?))
}

fn split_domain(name: &str) -> (&str, Option<&str>) {
    match split(name, '@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (name, None),
    }
}

fn unquote(name: &str) -> String {
    let name = name.trim();
    match name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => name.to_owned(),
    }
}

fn parse_targets(mut targets: &str, domains: &Domains) -> Result<Vec<AliasTarget>, String> {
    let mut found = Vec::new();
    loop {
        let (target, rest) = split(targets, ',').map_or((targets, None), |(t, r)| (t, Some(r)));
        let target = target.trim();
        if !target.is_empty() {
            found.push(parse_target(target, domains)?);
        }
        match rest {
            Some(rest) => targets = rest,
            None if found.is_empty() => return Err("an alias needs a target".to_owned()),
            None => return Ok(found),
        }
    }
}

fn parse_target(target: &str, domains: &Domains) -> Result<AliasTarget, String> {
    let bare = target.trim_start_matches('"');
    if bare.starts_with(['|', '/']) || bare.starts_with(":include:") {
        return Err(format!(
            "'{target}': targets must be addresses; commands, files and includes are not supported"
        ));
    }
    if let Some(name) = target.strip_prefix('\\') {
        return match parse_target(name, domains)? {
            AliasTarget::Local(local, at) => Ok(AliasTarget::Mailbox(local, at)),
            _ => Err(format!("'{target}': no local name after the backslash")),
        };
    }
    let path = ForwardPath::from_text(target);
    match path.ok_or_else(|| format!("'{target}' is not an address"))? {
        ForwardPath::Postmaster => Ok(AliasTarget::Local("postmaster".to_owned(), None)),
        ForwardPath::Mailbox(mailbox) => {
            let local = composed(mailbox.local()).into_owned();
            match mailbox.domain() {
                None => Ok(AliasTarget::Local(local, None)),
                Some(domain) => Ok(match domains.find(&domain_key(domain)) {
                    Some(at) => AliasTarget::Local(local, Some(at)),
                    None => AliasTarget::Remote(mailbox.to_string()),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::directory::tests::Scratch;

    fn load(text: &str) -> Result<Aliases, String> {
        let scratch = Scratch::new();
        let path = scratch.file("aliases", text);
        let domains = Domains::new(&["a.org".into(), "b.org".into()]);
        let loaded = Aliases::load(&path, &domains);
        loaded.map_err(|e| e.to_string().rsplit('/').next().unwrap().to_owned())
    }

    #[test]
    fn the_file() {
        let aliases = load(
            "# comment\r\n\nRoot: alice,\n  # within\n\t\"b b\"@B.org\nroot@b.org: <bob>\n\
             @b.org: carol\n\"x y\": out@side.net\njos\u{e9}: alice\n",
        )
        .unwrap();
        let local = |name: &str, at| AliasTarget::Local(name.into(), at);
        let root = [local("alice", None), local("b b", Some(1))];
        assert_eq!(aliases.find("root", 0), Some(&root[..]));
        assert_eq!(aliases.find("root", 1), Some(&[local("bob", None)][..]));
        assert_eq!(aliases.catch_all(1), Some(&[local("carol", None)][..]));
        assert_eq!(aliases.catch_all(0), None);
        assert_eq!(
            aliases.find("x y", 0),
            Some(&[AliasTarget::Remote("out@side.net".into())][..])
        );
        assert!(aliases.find("jos\u{e9}", 0).is_some());
        assert_eq!(aliases.len(), 5);
        assert!(
            load("alice: alice, bob\n").is_ok(),
            "itself means the mailbox"
        );
    }

    #[test]
    fn faults_name_their_line() {
        for (text, fault) in [
            (
                "a: b\nnonsense\n",
                "aliases:2: no 'name: target' on this line",
            ),
            (
                "a: b\nA : c\n",
                "aliases:2: 'A' is listed twice, first in line 1",
            ),
            ("a:\n", "aliases:1: an alias needs a target"),
            (": b\n", "aliases:1: an alias needs a name"),
            ("a@x.org: b\n", "aliases:1: 'x.org' is not delivered here"),
            ("a: b c@d\n", "aliases:1: 'b c@d' is not an address"),
            ("a: b\nb: c, d\nc: a\n", "aliases:"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.starts_with(fault), "{error}");
        }
        for dangerous in [
            "|/bin/sh",
            "\"|sh -c x\"",
            "/var/mail/x",
            ":include:/etc/passwd",
        ] {
            let error = load(&format!("a: {dangerous}\n")).unwrap_err();
            assert!(error.contains("must be addresses"), "{error}");
        }
        let chain: String = (0..50_000).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
        assert!(load(&chain).is_ok());
        assert!(
            load(&format!("{chain}n50000: n0\n"))
                .unwrap_err()
                .contains("is part of a loop")
        );
    }
}
