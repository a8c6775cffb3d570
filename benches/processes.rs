//! Resources used by processes, from /proc. A server is the process that was started and its descendants, including the
//! usage of those descendants that have ended.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The clock of /proc/PID/stat: USER_HZ is 100 wherever Linux runs.
const TICKS: f64 = 100.0;

/// Within this time descendants must end after the process they belong to.
const END: Duration = Duration::from_secs(5);

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

/// CPU seconds up to a moment: all, and how user and system share them, which is counted in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    all: f64,
    ticks: Usage,
}

impl Clock {
    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Usage {
        let all = self.all - before.all;
        let user = self.ticks.user - before.ticks.user;
        let system = self.ticks.system - before.ticks.system;
        // Less than a tick is taken for the system's: a server does little else.
        let user = all * user / (user + system).max(1.0 / TICKS);
        Usage {
            user,
            system: all - user,
        }
    }

    fn add(&mut self, all: f64, ticks: Usage) {
        self.all += all;
        self.ticks.user += ticks.user;
        self.ticks.system += ticks.system;
    }
}

/// A line of /proc/PID/stat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    state: char,
    /// With the pid it names a process for good: pids are used again.
    started: u64,
    own: Usage,
    /// What the children it has waited for used, and theirs.
    children: Usage,
}

impl Process {
    fn read(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may have spaces and brackets.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        Self::parse(pid, &fields.split_whitespace().collect::<Vec<_>>())
            .ok_or_else(|| io::Error::other("an unreadable /proc/PID/stat"))
    }

    /// From the fields after the name: the state is the first.
    fn parse(pid: u32, fields: &[&str]) -> Option<Self> {
        let ticks = |at: usize| Some(fields.get(at)?.parse::<f64>().ok()? / TICKS);
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            own: Usage {
                user: ticks(11)?,
                system: ticks(12)?,
            },
            children: Usage {
                user: ticks(13)?,
                system: ticks(14)?,
            },
        })
    }

    /// True if it still runs. A zombie has ended.
    fn runs(&self) -> bool {
        Self::read(self.pid)
            .is_ok_and(|now| now.started == self.started && !matches!(now.state, 'Z' | 'X'))
    }

    /// CPU seconds of its threads to the nanosecond, without those that have ended.
    fn precise(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        let nanoseconds = threads.into_iter().flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        nanoseconds.sum::<f64>() / 1e9
    }

    /// What it used itself, its ended threads included, or where that is more, what its threads say. /proc/PID/stat
    /// rounds down to ticks, which for fifty processes and a thousand messages would be a good part of it.
    fn used(&self) -> f64 {
        self.precise().max(self.own.user + self.own.system)
    }

    /// Ends it at once.
    pub(crate) fn end(&self) {
        if let Ok(raw) = i32::try_from(self.pid)
            && self.runs()
        {
            let _ = kill(Pid::from_raw(raw), Signal::SIGKILL);
        }
    }
}

/// A process and its descendants at this moment, the process first.
pub(crate) fn tree(pid: u32) -> io::Result<Vec<Process>> {
    let mut found = vec![Process::read(pid)?];
    let mut others: Vec<Process> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Process::read(pid).ok())
        .collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|process| process.pid) {
        found.extend(others.extract_if(.., |process| process.parent == parent));
        at += 1;
    }
    Ok(found)
}

/// Waits until these have ended, and ends those that take too long.
pub(crate) fn ended(processes: &[Process]) {
    let deadline = Instant::now() + END;
    while processes.iter().any(Process::runs) {
        if Instant::now() >= deadline {
            processes.iter().for_each(Process::end);
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The CPU time a server has used so far.
pub(crate) fn usage(pid: u32) -> io::Result<Clock> {
    let mut sum = Clock::default();
    for process in tree(pid)? {
        let children = process.children;
        sum.add(process.used(), process.own);
        sum.add(children.user + children.system, children);
    }
    Ok(sum)
}

/// KiB of a field of /proc/PID/status: VmRSS now, VmHWM at the peak. Of a server of many processes it is the sum over
/// those that run: what they share counts in each, and their peaks need not have been at the same time.
pub(crate) fn memory(pid: u32, field: &str) -> io::Result<u64> {
    let read = |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line?.split_whitespace().next()?.parse::<u64>().ok()
    };
    let first = read(pid).ok_or_else(|| io::Error::other(format!("no {field}")))?;
    let others = tree(pid)?;
    let others = others.iter().skip(1).filter_map(|child| read(child.pid));
    Ok(first + others.sum::<u64>())
}
