//! The scenarios with a load: load and participants. Mail systems as peers get a twentieth of the messages, because
//! they take that much longer. A quick run has a quarter of the messages and no Maildirs full of files; the mail
//! systems have a tenth of those, in one round and in two rows.

use std::io;

use crate::load::{Load, plain};
use crate::place::Medium;
use crate::report::{Unit, number};
use crate::runs::Program::{
    self, Dovecot, Logged, Mailin, Mailslot, Opensmtpd, Postfix, Raw, Sink, Sourced,
};
use crate::runs::{Scenario, Slow};
use crate::{Bench, Extent, given};

/// mailslot and all who can be beside it in memory.
const PEERS: [Program; 6] = [Mailslot, Mailin, Sink, Postfix, Dovecot, Opensmtpd];

/// Scenarios in the making.
struct List<'a> {
    extent: &'a Extent,
    made: Vec<Scenario>,
}

impl List<'_> {
    fn add(&mut self, name: &str, medium: Medium, programs: &[Program], load: Load) {
        let (part, rounds) = match self.extent.quick {
            true => (10, 1),
            false => (20, self.extent.rounds),
        };
        let messages = (load.messages / part).max(1);
        let slow = Slow { messages, rounds };
        self.made.push(Scenario {
            name: name.to_owned(),
            medium,
            unit: unit(&load),
            load,
            slow,
            programs: programs.to_vec(),
            filled: 0,
        });
    }

    /// All who can be beside mailslot in memory. In a quick run whole mail systems are in the first row of memory and
    /// in one of the disk only: it takes seconds to start them.
    fn peers(&self) -> &'static [Program] {
        match self.extent.quick {
            true => &PEERS[..3],
            false => &PEERS,
        }
    }

    fn memory(&mut self, name: &str, programs: &[Program], load: Load) {
        self.add(&format!("tmpfs, {name}"), Medium::Memory, programs, load);
    }
}

fn unit(load: &Load) -> Unit {
    match load.size >= 1 << 20 {
        true => Unit::Megabytes,
        false => Unit::Messages,
    }
}

/// All of them, in the order of the table.
pub(crate) fn all(bench: &Bench, extent: &Extent) -> Vec<Scenario> {
    let made = Vec::new();
    let mut list = List { extent, made };
    small(&mut list, bench);
    on_disk(&mut list);
    large(&mut list, bench);
    many(&mut list);
    // To make and to remove the files takes longer than the runs.
    if !extent.quick {
        filled(&mut list);
    }
    list.made
}

/// 4 KiB on tmpfs.
fn small(list: &mut List<'_>, bench: &Bench) {
    let extent = list.extent;
    let ten = || plain(10, extent.few(60_000));
    let some = [Mailslot, Mailin, Sink];
    let all = [&PEERS[..1], &[Logged, Sourced], &PEERS[1..]].concat();
    list.memory("10 sessions reused, 4 KiB", &all, ten());
    let fifty = plain(50, extent.few(60_000));
    list.memory("50 sessions reused, 4 KiB", &some, fifty);
    let fresh = Load {
        reuse: false,
        ..plain(10, extent.few(24_000))
    };
    list.memory(
        "10 sessions, a connection a message, 4 KiB",
        list.peers(),
        fresh,
    );
    let pipelined = Load {
        pipeline: true,
        ..ten()
    };
    let chunks = Load {
        bdat: true,
        ..pipelined
    };
    list.memory("10 sessions reused, pipelined, 4 KiB", &some, pipelined);
    list.memory(
        "10 sessions reused, pipelined BDAT, 4 KiB",
        &[Mailslot],
        chunks,
    );
    if bench.binary.knows("lmtp:") {
        let lmtp = Load {
            lmtp: true,
            ..ten()
        };
        list.memory("10 sessions reused, LMTP, 4 KiB", &[Mailslot], lmtp);
    }
}

/// 4 KiB on the disk.
fn on_disk(list: &mut List<'_>) {
    let fifty = if list.extent.quick { 10_000 } else { 20_000 };
    let few = [Mailslot, Raw, Mailin].as_slice();
    let more = [Mailslot, Raw, Mailin, Postfix, Dovecot, Opensmtpd].as_slice();
    for (sessions, messages, programs) in [(1, 5_000, few), (10, 15_000, more), (50, fifty, few)] {
        let s = if sessions == 1 { "" } else { "s" };
        let name = format!("disk, {sessions} session{s} reused, 4 KiB");
        let load = plain(sessions, list.extent.few(messages));
        list.add(&name, Medium::Disk, programs, load);
    }
}

/// 1 MiB on tmpfs.
fn large(list: &mut List<'_>, bench: &Bench) {
    let large = Load {
        size: 1 << 20,
        ..plain(4, list.extent.few(800))
    };
    list.memory("4 sessions reused, 1 MiB", list.peers(), large.clone());
    if bench.tls.is_some() {
        let tls = Load { tls: true, ..large };
        list.memory("4 sessions reused, 1 MiB over STARTTLS", &[Mailslot], tls);
    }
}

/// 50 recipients on tmpfs.
fn many(list: &mut List<'_>) {
    let many = Load {
        recipients: 50,
        ..plain(10, list.extent.few(1_000))
    };
    let pipelined = Load {
        pipeline: true,
        ..many
    };
    list.memory(
        "10 sessions reused, 50 recipients, 4 KiB",
        list.peers(),
        many,
    );
    list.memory(
        "10 sessions reused, 50 recipients, pipelined, 4 KiB",
        &[Mailslot, Mailin, Sink],
        pipelined,
    );
}

/// Beside many files in `new/`, on the disk.
fn filled(list: &mut List<'_>) {
    let files = match list.extent.full {
        true => 1_000_000,
        false => 100_000,
    };
    for filled in [1, files] {
        let s = if filled == 1 { "" } else { "s" };
        let count = number(filled as f64, 0);
        let name = format!("disk, 10 sessions reused, 4 KiB, {count} file{s} in new/ before");
        let load = plain(10, 10_000);
        list.add(&name, Medium::Disk, &[Mailslot, Raw], load);
        if let Some(scenario) = list.made.last_mut() {
            scenario.filled = filled;
        }
    }
}

/// The one load that was asked for, with the same number of messages for each program.
pub(crate) fn given(bench: &Bench, extent: &Extent, load: &Load) -> io::Result<Vec<Scenario>> {
    if load.tls && bench.tls.is_none() {
        return Err(io::Error::other(
            "LOAD: tls=yes needs a certificate: see above",
        ));
    }
    let scenario = |(medium, place): (Medium, &str)| Scenario {
        name: format!("{place}, {}", given::show(load)),
        medium,
        unit: unit(load),
        load: load.clone(),
        slow: Slow {
            messages: load.messages,
            rounds: extent.rounds,
        },
        programs: able(load, medium),
        filled: 0,
    };
    let places = [(Medium::Memory, "tmpfs"), (Medium::Disk, "disk")];
    Ok(places.into_iter().map(scenario).collect())
}

/// The possible participants of a load. One without an extension that is only known in the dialogue notes it in its
/// row.
fn able(load: &Load, medium: Medium) -> Vec<Program> {
    let mut programs = vec![Mailslot];
    // It writes each message to one mailbox.
    if medium == Medium::Disk && load.recipients == 1 {
        programs.push(Raw);
    }
    if !load.tls && !load.lmtp {
        programs.push(Mailin);
        // What stores nothing has no business with the disk.
        programs.extend((medium == Medium::Memory).then_some(Sink));
        programs.extend([Postfix, Opensmtpd]);
    }
    if !load.tls {
        programs.push(Dovecot);
    }
    programs
}
