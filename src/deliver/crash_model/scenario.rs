//! A scenario: recipients and messages. One run of it gives a history.

use std::sync::Arc;

use nix::errno::Errno;

use super::super::disk::{Disk, Real, fd};
use super::super::faults::{Scratch, target, trace};
use super::super::junk::JunkField;
use super::super::store::Store;
use super::super::target::{Form, Group, Quota, Sync, Target};
use super::history::History;
use super::recorder::{Fails, Mutation, Recorder};

/// The end of every message.
pub(super) const END: &str = "The end of it.\n";

/// Deliveries to some mailboxes.
#[derive(Clone, Debug, Default)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// The mailboxes of each recipient.
    pub(super) recipients: Vec<Vec<&'static str>>,
    pub(super) lmtp: bool,
    pub(super) quota: bool,
    /// The error of link(2), if it is to fail.
    pub(super) no_links: Option<Errno>,
    /// This mailbox lies on another device.
    pub(super) elsewhere: Option<&'static str>,
    /// Another process made the Maildir of `a` just now, and has not come to its syncs.
    pub(super) made_by_others: bool,
    /// The messages are spam, and that Maildir has a folder for it.
    pub(super) junk: bool,
    /// The folder for spam is named by the address.
    pub(super) named: bool,
    /// So many messages, one after the other.
    pub(super) messages: usize,
    /// Octets of a message besides its first and last lines.
    pub(super) octets: usize,
}

impl Scenario {
    pub(super) fn new(name: &'static str, recipients: &[&[&'static str]]) -> Self {
        Self {
            name,
            recipients: recipients.iter().map(|group| group.to_vec()).collect(),
            messages: 1,
            // More than one write.
            octets: 40_000,
            ..Self::default()
        }
    }

    /// A disk for it in a directory where nothing was done yet.
    pub(super) fn recorder(&self, scratch: &Scratch, mutation: Mutation) -> Recorder {
        let recorder = Recorder::new(&scratch.0, mutation, self.no_links, self.elsewhere);
        if self.made_by_others {
            make(&recorder, scratch, self.junk);
        }
        recorder
    }

    /// Runs it, and gives what was done, and how many calls changed the disk.
    pub(super) fn run(&self, mutation: Mutation, fails: Fails) -> (History, usize) {
        let scratch = Scratch::new();
        let recorder = self.recorder(&scratch, mutation);
        recorder.start(fails);
        let store = Store::with_disk("mx", Sync::Full, 100, Box::new(recorder.clone()));
        let junk = JunkField::parse("Subject:x").filter(|_| self.junk);
        let store = store.with_junk(junk.into_iter().collect());
        for _ in 0..self.messages {
            self.deliver(&scratch, &recorder, &store);
        }
        (recorder.history(), recorder.counts().0)
    }

    /// One message; what is accepted is promised.
    pub(super) fn deliver(&self, scratch: &Scratch, recorder: &Recorder, store: &Store) {
        let groups = self.groups(scratch);
        let mut spool = store.begin(&trace(), groups.clone(), Form::Text, None);
        spool.write(b"Subject: x\n\n");
        spool.write(&vec![b'x'; self.octets]);
        spool.write(END.as_bytes());
        let outcomes = if self.lmtp {
            spool.commit_each()
        } else {
            vec![spool.commit(); groups.len()]
        };
        let mut promised = Vec::new();
        for (group, outcome) in groups.iter().zip(outcomes) {
            let Ok(delivered) = outcome else { continue };
            for target in group.iter() {
                let inner = target.maildir.strip_prefix(&scratch.0).unwrap();
                // After an error in the folder it is in the inbox.
                let in_folder = target.maildir.join(".Junk/new").join(delivered.name());
                let folder = match in_folder.exists() {
                    true => ".Junk/new",
                    false => "new",
                };
                let path = inner.join(folder).join(delivered.name());
                let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
                promised.push((names.collect(), END));
            }
        }
        recorder.promise(promised);
    }

    fn groups(&self, scratch: &Scratch) -> Vec<Group> {
        let member = |user: &&str| {
            let quota = self.quota.then_some(Quota {
                bytes: Some(1_000_000),
                messages: None,
            });
            Arc::new(Target {
                quota,
                folder: self.named.then(|| ".Junk".to_owned()),
                ..target(scratch, user)
            })
        };
        let group = |users: &Vec<&str>| users.iter().map(member).collect();
        self.recipients.iter().map(group).collect()
    }
}

/// Makes the Maildir of `a`, and syncs nothing.
fn make(disk: &Recorder, scratch: &Scratch, junk: bool) {
    let mut dir = Real.open(&scratch.0).unwrap();
    for name in ["example.org", "a"] {
        disk.make_dir(fd(&dir), name.as_ref()).unwrap();
        dir = Real.open_in(fd(&dir), name.as_ref(), false).unwrap();
    }
    for name in ["cur", "new", "tmp", ".Junk"]
        .into_iter()
        .take(if junk { 4 } else { 3 })
    {
        disk.make_dir(fd(&dir), name.as_ref()).unwrap();
    }
}
