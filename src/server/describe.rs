//! The server's description of itself, for the log at the start and for `--check`.

use nix::unistd::geteuid;

use super::process::Server;
use crate::auth::Account;
use crate::failure::Failure;
use crate::net::dns::Resolver;

impl Server {
    /// The domains with their mailboxes, users and aliases.
    fn describe_mail(&self) -> String {
        let snapshot = self.state.snapshot();
        let directory = &snapshot.directory;
        let mut text = format!(
            "mail for {} goes to {}",
            directory.domains().join(", "),
            directory.pattern()
        );
        if let Some(users) = directory.users() {
            text.push_str(&format!(", for {}", counted(users, "user")));
        }
        text.push_str(match (directory.users(), directory.creates()) {
            (Some(_), true) => " and any other name",
            (Some(_), false) => "",
            (None, true) => ", created on first delivery",
            (None, false) => ", where that directory exists",
        });
        if let Some(aliases) = directory.aliases() {
            text.push_str(&format!(", with {}", counted(aliases, "alias")));
        }
        let listed = directory.users().is_some() || directory.creates();
        if let Some(example) = directory.example("alice").filter(|_| !listed) {
            text.push_str(&format!(
                "\nto open a mailbox, create its directory: mkdir -p {example}"
            ));
        }
        text
    }

    /// A description of the service, one sentence a line.
    pub fn describe(&self) -> String {
        let mut text = self.describe_mail();
        if let Some(relay) = &self.config.relay {
            text.push_str(&relay.describe());
        }
        if let Some((chain, _)) = &self.config.tls {
            text.push_str(&format!(
                "\nTLS with the certificate in {}",
                chain.display()
            ));
        }
        let trusted = self.config.trust.names();
        if !trusted.is_empty() {
            let trusted = trusted.join(", ");
            text.push_str(&format!("\ntrusted to name other clients: {trusted}"));
        }
        if let Some(greylist) = &self.config.greylist {
            let delay = greylist.delay.as_secs();
            text.push_str(&format!(
                "\nthe first mail of a sender is deferred for {delay}s"
            ));
        }
        for line in self.config.privileges.describe() {
            text.push('\n');
            text.push_str(&line);
        }
        text
    }

    /// The output of `--check`: listeners, description and next hops, one sentence a line. Warnings go to the log, as
    /// at a start.
    ///
    /// # Errors
    /// A file that a start would find unusable.
    pub fn check(&self) -> Result<String, Failure> {
        let privileges = &self.config.privileges;
        if privileges.chroot.is_none() {
            if let Some(greylist) = &self.config.greylist {
                greylist.check()?;
            }
            self.warn_of_root();
        }
        if privileges.run_as.is_none() {
            self.warn_of_owners();
        }
        let (listeners, text) = (self.listeners(), self.describe());
        Ok(format!("{listeners}{text}{}", self.next_hops()))
    }

    /// Warns of a missing fixed part of the pattern that no start makes.
    pub(super) fn warn_of_root(&self) {
        let snapshot = self.state.snapshot();
        let directory = &snapshot.directory;
        let root = directory.root();
        if !directory.creates() && !root.is_dir() && !directory.is_without_root() {
            let root = root.display();
            log::warn!("{root} is not a directory: mail gets 451 until it is");
        }
    }

    /// Warns root of Maildirs whose owners do not fit the accounts.
    pub(super) fn warn_of_owners(&self) {
        let snapshot = self.state.snapshot();
        let directory = &snapshot.directory;
        if !geteuid().is_root() {
            return;
        }
        if let Some((maildir, uid)) = directory.mailbox_of_other(0) {
            log::warn!(
                "{} belongs to user {uid}, but mail there will belong to root: give the account a uid and gid in --users, \
                 or run as that user (--run-as)",
                maildir.display()
            );
        }
        if let Some((part, uid)) = directory.unwritable_part() {
            log::warn!(
                "user {uid} may not write in {}: mail there gets 451 until you chown -R the Maildir to its user",
                part.display()
            );
        }
    }

    /// What the names of next hops resolve to, and missing users, one a line.
    fn next_hops(&self) -> String {
        let Some(relay) = &self.config.relay else {
            return String::new();
        };
        let mut text = String::new();
        for line in relay.look_up(Resolver::system(false)) {
            text.push_str(&format!("\n{line}"));
        }
        let snapshot = self.state.snapshot();
        for user in relay.fetching() {
            if matches!(snapshot.directory.account(user), Account::Unknown) {
                text.push_str(&format!("\nthere is no user {user} to fetch that mail"));
            }
        }
        text
    }

    /// The listeners as configured, one a line.
    fn listeners(&self) -> String {
        let all = self.config.listen.iter().chain(&self.config.metrics);
        all.map(|url| format!("{url}\n")).collect()
    }
}

/// `1 user`, `2 users`, `3 aliases`.
fn counted(count: usize, what: &str) -> String {
    let plural = match (count, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {what}{plural}")
}
