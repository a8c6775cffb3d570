//! The directories of the runs: one on the disk and one in memory, each with a fresh directory for each run. Also the
//! list of processes and directories to remove at the end, or when a signal ends the benchmark. On a disk nothing is
//! deleted before the end: after deletions ext4's inode allocator is slower for minutes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::load::Load;
use crate::processes;

static DIRS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static PIDS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mail on the disk or in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    Disk,
    Memory,
}

/// The two directories of this benchmark. Dropping it removes them.
pub(crate) struct Place {
    disk: PathBuf,
    memory: PathBuf,
    /// True if `memory` is a tmpfs; otherwise it is the temporary directory.
    pub(crate) in_memory: bool,
    runs: AtomicUsize,
}

impl Place {
    /// Makes both. `disk` is the directory on the disk to measure.
    pub(crate) fn new(disk: &Path) -> io::Result<Self> {
        let name = format!("mailslot-bench-{}", std::process::id());
        fs::create_dir_all(disk)?;
        let disk = disk.canonicalize()?.join(&name);
        let shm = Path::new("/dev/shm");
        let in_memory = file_system(shm).0 == "tmpfs";
        let memory = match in_memory {
            true => shm.join(&name),
            false => std::env::temp_dir().join(&name),
        };
        for dir in [&disk, &memory] {
            lock(&DIRS).push(dir.clone());
            fs::create_dir_all(dir)?;
        }
        // ext4 then gives each run's directory a block group of its own. Where it can't be had, it isn't.
        let top = Command::new("chattr")
            .arg("+T")
            .arg(&disk)
            .stderr(Stdio::null())
            .status();
        drop(top);
        Ok(Self {
            disk,
            memory,
            in_memory,
            runs: AtomicUsize::new(0),
        })
    }

    /// Uses as much memory as the messages of a load will take, and gives it back. What a virtual machine did not use
    /// for a while costs a fault in its host at the next touch, and it would be chance who pays for that.
    pub(crate) fn warm(&self, load: &Load) -> io::Result<()> {
        // A message has a page for its headers, and about another one for what the system keeps of the file.
        let octets = load.messages * (load.size + 8_192);
        let path = self.memory.join("warm");
        let block = vec![1; 1 << 20];
        let mut file = fs::File::create(&path)?;
        for _ in 0..octets >> 20 {
            io::Write::write_all(&mut file, &block)?;
        }
        drop(file);
        fs::remove_file(path)
    }

    pub(crate) fn root(&self, medium: Medium) -> &Path {
        match medium {
            Medium::Disk => &self.disk,
            Medium::Memory => &self.memory,
        }
    }

    /// A fresh directory.
    pub(crate) fn fresh(&self, medium: Medium) -> io::Result<PathBuf> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let dir = self.root(medium).join(format!("run{number}"));
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// A run is over: memory is given back at once, the disk is left as it is.
    pub(crate) fn done(&self, dir: &Path) {
        if self.in_memory && dir.starts_with(&self.memory) {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_all();
    }
}

fn remove_all() {
    for dir in lock(&DIRS).drain(..) {
        if let Err(e) = fs::remove_dir_all(&dir)
            && e.kind() != io::ErrorKind::NotFound
        {
            eprintln!("{}: {e}", dir.display());
        }
    }
}

/// Makes Maildirs `u0` to `u(count-1)` in `dir`.
pub(crate) fn mailboxes(dir: &Path, count: usize) -> io::Result<()> {
    for number in 0..count {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(format!("u{number}")).join(part))?;
        }
    }
    fs::File::open(dir)?.sync_all()
}

/// The type and the mount options of the file system that a path is on.
pub(crate) fn file_system(path: &Path) -> (String, String) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best = (0, ("unknown".to_owned(), String::new()));
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
            && path.starts_with(point)
            && point.len() >= best.0
        {
            best = (point.len(), (kind.to_owned(), options.to_owned()));
        }
    }
    best.1
}

/// Starts a process that ends when the benchmark does.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Not released before the process is in the list; and once a signal came, never had again.
    let mut pids = lock(&PIDS);
    // A process inherits what its parent's thread blocks, and SIGTERM must reach it.
    let signals = signals();
    signals.thread_unblock()?;
    let child = command.spawn();
    signals.thread_block()?;
    pids.extend(child.as_ref().map(Child::id).ok());
    child
}

/// Asks an owned process to end, and ends it where it doesn't within half a minute; its descendants end with it. Its
/// status, if it shut down gracefully.
pub(crate) fn stop(child: &mut Child) -> io::Result<Option<i32>> {
    let pid = child.id();
    let family = processes::tree(pid).unwrap_or_default();
    if let Ok(raw) = i32::try_from(pid)
        && child.try_wait()?.is_none()
    {
        let _ = kill(Pid::from_raw(raw), Signal::SIGTERM);
    }
    let code = wait(child, Duration::from_secs(30))?;
    if code.is_none() {
        child.kill()?;
        child.wait()?;
    }
    processes::ended(family.get(1..).unwrap_or_default());
    lock(&PIDS).retain(|&other| other != pid);
    Ok(code)
}

/// Waits for an owned process. None where it was ended by a signal or takes longer.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<i32>> {
    let deadline = Instant::now() + limit;
    loop {
        // The list is locked, so that no reused process id is signalled.
        let mut pids = lock(&PIDS);
        if let Some(status) = child.try_wait()? {
            pids.retain(|&other| other != child.id());
            return Ok(status.code());
        }
        drop(pids);
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What ends a benchmark from outside.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

/// At one of these signals: ends what was started, removes what was made. To be called before any other thread.
pub(crate) fn watch_signals() -> io::Result<()> {
    let signals = signals();
    signals.thread_block()?;
    std::thread::spawn(move || {
        let _ = signals.wait();
        // Kept to the end: nothing is started any more.
        let pids = lock(&PIDS);
        for &pid in pids.iter() {
            let family = processes::tree(pid).unwrap_or_default();
            family.iter().for_each(processes::Process::end);
        }
        // The runs go on for a moment and may still make files.
        for _ in 0..3 {
            let dirs = lock(&DIRS).clone();
            for dir in dirs {
                let _ = fs::remove_dir_all(dir);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::process::exit(130);
    });
    Ok(())
}
