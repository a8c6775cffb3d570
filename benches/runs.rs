//! One run: a fresh directory, a fresh process, a load, the check that every acknowledged message is there and whole.

use crate::Bench;
use crate::load::{self, Load, Sample};
use crate::message::{FILLER, Template, check, check_count};
use crate::place::{Medium, mailboxes};
use crate::raw;
use crate::report::{Unit, rate};
use crate::server::{Process, Setup};
use std::fs::File;
use std::io;
use std::path::Path;

/// Who takes the messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    Mailslot,
    /// With a line a message written to a file.
    Logged,
    /// With smtp-source as the generator.
    Sourced,
    Mailin,
    Sink,
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
            Self::Raw => "raw limit",
        }
    }
}

/// A row of the table: the same load for several programs.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) medium: Medium,
    pub(crate) unit: Unit,
    pub(crate) load: Load,
    pub(crate) programs: Vec<Program>,
    /// So many files are in `new/` before.
    pub(crate) filled: usize,
}

/// How a server is started for so many sessions.
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
            Program::Raw => Ok(None),
        }
    }

    /// One round of a scenario. The order changes from round to round, so that nobody is always the first.
    pub(crate) fn round(&mut self, scenario: &Scenario, round: usize) -> io::Result<()> {
        let count = scenario.programs.len();
        let mut samples: Vec<Option<Result<Sample, String>>> = (0..count).map(|_| None).collect();
        for step in 0..count {
            let at = if round.is_multiple_of(2) {
                step
            } else {
                count - 1 - step
            };
            let program = scenario.programs[at];
            samples[at] = match self.one(scenario, program) {
                Ok(sample) => sample.map(Ok),
                Err(e) if e.kind() == io::ErrorKind::Unsupported => Some(Err(e.to_string())),
                // A peer's trouble is no reason to stop.
                Err(e) if matches!(program, Program::Mailin | Program::Sink) => {
                    Some(Err(e.to_string()))
                }
                Err(e) => {
                    return Err(io::Error::other(format!(
                        "{}, {}: {e}",
                        scenario.name,
                        program.name()
                    )));
                }
            };
        }
        let raw = scenario
            .programs
            .iter()
            .position(|&program| program == Program::Raw);
        let raw = raw.and_then(|at| {
            samples[at]
                .as_ref()?
                .as_ref()
                .ok()
                .map(|sample| rate(sample, scenario.unit))
        });
        for (program, sample) in scenario.programs.iter().zip(samples) {
            match sample {
                Some(Ok(sample)) => {
                    let share = raw.filter(|_| *program != Program::Raw);
                    self.report
                        .add(&scenario.name, program.name(), scenario.unit, sample, share);
                }
                Some(Err(reason)) => {
                    let text = format!("not measured: {reason}");
                    self.report.say(&scenario.name, program.name(), text, None);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// One run. None where the program is missing.
    fn one(&self, scenario: &Scenario, program: Program) -> io::Result<Option<Sample>> {
        let load = &scenario.load;
        let template = Template::new(load.size);
        let dir = self.place.fresh(scenario.medium)?;
        mailboxes(&dir, load.recipients)?;
        fill(&dir, scenario.filled)?;
        if program == Program::Raw {
            let sample = raw::run(&dir, load, &template)?;
            check(&dir, 1, load.messages, &template)?;
            self.place.done(&dir);
            return Ok(Some(sample));
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
            load::run(&server, load, &template, tls.map(|tls| &tls.client))?
        };
        match program {
            Program::Sink => {}
            Program::Sourced => check_count(&dir, load.messages, load.size as u64 / 2)?,
            _ => check(&dir, load.recipients, load.messages, &template)?,
        }
        let code = server.stop()?;
        if code != Some(0)
            && matches!(
                program,
                Program::Mailslot | Program::Logged | Program::Sourced
            )
        {
            return Err(io::Error::other(format!("SIGTERM: exit status {code:?}")));
        }
        self.place.done(&dir);
        Ok(Some(sample))
    }
}

/// Puts so many empty files into `new/` of the first mailbox.
fn fill(dir: &Path, count: usize) -> io::Result<()> {
    let new = dir.join("u0/new");
    for number in 0..count {
        File::create_new(new.join(format!("{FILLER}{number}.bench.test")))?;
    }
    // Not to be paid by the first message of the run.
    File::open(&new)?.sync_all()
}
