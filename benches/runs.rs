//! One run: a new directory, a new process, a load, and the check that every acknowledged message is complete.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::Bench;
use crate::dovecot::Dovecot;
use crate::load::{self, Load, Sample};
use crate::message::{FILLER, Template, arrive, check, check_count};
use crate::place::{Medium, mailboxes};
use crate::postfix::Postfix;
use crate::raw::{self, Way};
use crate::report::{Unit, rate};
use crate::server::{Process, Setup};

/// The receiving servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    Mailslot,
    /// With a line a message written to a file.
    Logged,
    /// With smtp-source as the generator.
    Sourced,
    Mailin,
    Sink,
    Postfix,
    /// By LMTP, in rows of logins its submission-login.
    Dovecot,
    Opensmtpd,
    Raw,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mailslot => "mailslot",
            Self::Logged => "mailslot, its log in a file",
            Self::Sourced => "mailslot, fed by smtp-source",
            Self::Mailin => "mailin-embedded",
            Self::Sink => "smtp-sink (stores nothing)",
            Self::Postfix => "Postfix, to its queue",
            Self::Dovecot => "Dovecot",
            Self::Opensmtpd => "OpenSMTPD, to its queue",
            Self::Raw => "raw limit",
        }
    }

    /// The name of a second row, for those that deliver after they have answered.
    fn name_arrived(self) -> Option<&'static str> {
        match self {
            Self::Postfix => Some("Postfix, to the Maildirs (same runs)"),
            Self::Opensmtpd => Some("OpenSMTPD, to the Maildirs (same runs)"),
            _ => None,
        }
    }

    /// A whole mail system, which gets fewer messages, as it takes as long for them.
    fn slow(self) -> bool {
        matches!(self, Self::Postfix | Self::Dovecot | Self::Opensmtpd)
    }

    fn ours(self) -> bool {
        matches!(self, Self::Mailslot | Self::Logged | Self::Sourced)
    }

    /// Errors of a peer do not stop the run.
    fn peer(self) -> bool {
        !self.ours() && self != Self::Raw
    }
}

/// A row of the table: the same load for several programs.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) medium: Medium,
    pub(crate) unit: Unit,
    pub(crate) load: Load,
    pub(crate) slow: Slow,
    pub(crate) programs: Vec<Program>,
    /// So many files are in `new/` before.
    pub(crate) filled: usize,
}

/// What slow programs get of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    pub(crate) messages: usize,
    pub(crate) rounds: usize,
}

impl Scenario {
    /// The load as a program gets it.
    fn load_for(&self, program: Program) -> Load {
        let mut load = self.load.clone();
        if program.slow() {
            load.messages = self.slow.messages;
        }
        // It speaks nothing else.
        load.lmtp |= program == Program::Dovecot;
        load
    }

    /// The participants of a round, in changing order.
    fn in_round(&self, round: usize) -> Vec<Program> {
        let all = self.programs.iter().copied();
        let mut programs: Vec<Program> = all
            .filter(|program| !program.slow() || round < self.slow.rounds)
            .collect();
        if !round.is_multiple_of(2) {
            programs.reverse();
        }
        programs
    }
}

/// Starts a server for a number of sessions.
pub(crate) fn setup_for(sessions: usize) -> Setup {
    Setup {
        lmtp: false,
        log: false,
        sessions,
        more: Vec::new(),
    }
}

impl Bench {
    /// Starts a program. None where it is missing.
    pub(crate) fn start(
        &self,
        program: Program,
        dir: &Path,
        setup: &Setup,
    ) -> io::Result<Option<Process>> {
        match program {
            Program::Mailslot | Program::Logged | Program::Sourced => {
                self.binary.start(dir, setup).map(Some)
            }
            Program::Mailin => self.peers.mailin(dir, setup.sessions + 4).transpose(),
            Program::Sink => self.peers.sink().transpose(),
            Program::Postfix => {
                let start = |postfix: &Postfix| postfix.start(dir, setup.sessions);
                self.peers.postfix.as_ref().map(start).transpose()
            }
            Program::Dovecot => {
                let start = |dovecot: &Dovecot| dovecot.start(dir, setup.sessions);
                self.peers.dovecot.as_ref().map(start).transpose()
            }
            Program::Opensmtpd => {
                let opensmtpd = self.peers.opensmtpd.as_ref();
                opensmtpd.map(|opensmtpd| opensmtpd.start(dir)).transpose()
            }
            Program::Raw => Ok(None),
        }
    }

    /// One round of a scenario.
    pub(crate) fn round(&mut self, scenario: &Scenario, round: usize) -> io::Result<()> {
        let mut samples = Vec::new();
        for program in scenario.in_round(round) {
            let outcome = match self.one(scenario, program) {
                Ok(None) => continue,
                Ok(Some(sample)) => Ok(sample),
                Err(e) if program.peer() || e.kind() == io::ErrorKind::Unsupported => {
                    Err(e.to_string())
                }
                Err(e) => {
                    let (scenario, name) = (&scenario.name, program.name());
                    return Err(io::Error::other(format!("{scenario}, {name}: {e}")));
                }
            };
            samples.push((program, outcome));
        }
        let raw = samples.iter().find(|(program, _)| *program == Program::Raw);
        let raw = raw.and_then(|(_, sample)| Some(rate(sample.as_ref().ok()?, scenario.unit)));
        // The rows of the first round stand as in the list.
        samples.sort_by_key(|(program, _)| {
            let listed = &scenario.programs;
            listed.iter().position(|other| other == program)
        });
        for (program, outcome) in samples {
            let (name, unit) = (&scenario.name, scenario.unit);
            match outcome {
                Ok(sample) => {
                    let share = raw.filter(|_| program != Program::Raw);
                    self.report.add(name, program.name(), unit, sample, share);
                    if let Some(row) = program.name_arrived() {
                        let seconds = sample.arrived;
                        let sample = Sample { seconds, ..sample };
                        self.report.add(name, row, unit, sample, share);
                    }
                }
                Err(reason) => {
                    let text = format!("not measured: {reason}");
                    self.report.say(name, program.name(), text, None);
                }
            }
        }
        Ok(())
    }

    /// One run of threads that only write.
    fn raw(&self, dir: &Path, load: &Load, template: &Template, way: Way) -> io::Result<Sample> {
        let sample = raw::run(dir, load, template, way)?;
        check(dir, 1, load.messages, template)?;
        self.place.done(dir);
        Ok(sample)
    }

    /// One round of all ways to make messages durable, side by side.
    pub(crate) fn ways(&mut self, medium: Medium, load: &Load, round: usize) -> io::Result<()> {
        let place = if medium == Medium::Disk {
            "disk"
        } else {
            "tmpfs"
        };
        let s = if load.sessions == 1 { "" } else { "s" };
        let scenario = format!("{place}, {} thread{s}, {} octets", load.sessions, load.size);
        let template = Template::new(load.size);
        let (mut plain, mut all) = (None, Vec::from(Way::ALL));
        // The plain way is always the first, as the others are compared with it.
        all[1..].rotate_left(round % 4);
        for way in all {
            let dir = self.place.fresh(medium)?;
            mailboxes(&dir, 1)?;
            self.place.warm(load)?;
            match self.raw(&dir, load, &template, way) {
                Ok(sample) => {
                    let rate = rate(&sample, Unit::Messages);
                    let plain = *plain.get_or_insert(rate);
                    self.report
                        .add(&scenario, way.name(), Unit::Messages, sample, Some(plain));
                }
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                    let text = format!("not measured: {e}");
                    self.report.say(&scenario, way.name(), text, None);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// One run. None where the program is missing.
    fn one(&self, scenario: &Scenario, program: Program) -> io::Result<Option<Sample>> {
        let load = &scenario.load_for(program);
        let template = Template::new(load.size);
        let dir = self.place.fresh(scenario.medium)?;
        mailboxes(&dir, load.recipients)?;
        fill(&dir, scenario.filled)?;
        self.place.warm(load)?;
        if program == Program::Raw {
            return self.raw(&dir, load, &template, Way::Std).map(Some);
        }
        let mut setup = setup_for(load.sessions);
        setup.lmtp = load.lmtp;
        setup.log = program == Program::Logged;
        let tls = self.tls.as_ref().filter(|_| load.tls);
        if let Some(tls) = tls {
            setup.more.clone_from(&tls.options);
        }
        let Some(server) = self.start(program, &dir, &setup)? else {
            return Ok(None);
        };
        let sample = if program == Program::Sourced {
            match self
                .peers
                .source(&server, load.sessions, load.messages, load.size)
            {
                Some(sample) => sample?,
                None => return Ok(None),
            }
        } else {
            let tls = tls.map(|tls| &tls.client);
            load::run(&server, load, &template, tls, || {
                match program.name_arrived() {
                    Some(_) => arrive(&dir, load.recipients, load.messages),
                    None => Ok(()),
                }
            })?
        };
        match program {
            Program::Sink => {}
            Program::Sourced => check_count(&dir, load.messages, load.size as u64 / 2)?,
            _ => check(&dir, load.recipients, load.messages, &template)?,
        }
        let code = server.stop()?;
        if program.ours() && code != Some(0) {
            return Err(io::Error::other(format!("SIGTERM: exit status {code:?}")));
        }
        self.place.done(&dir);
        Ok(Some(sample))
    }
}

/// Creates empty files in `new/` of the first mailbox.
fn fill(dir: &Path, count: usize) -> io::Result<()> {
    let new = dir.join("u0/new");
    for number in 0..count {
        File::create_new(new.join(format!("{FILLER}{number}.bench.test")))?;
    }
    // Not to be paid by the first message of the run.
    File::open(&new)?.sync_all()
}
