//! The greylist of a running server: shared by all connections. Its file, if any, is read at the start, and written a
//! minute after a change and at the end. `list` makes the decisions.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::list::{Decision, Greylist};
use crate::failure::{Failure, FileError};
use crate::lock::{lock, wait};
use crate::random;
use crate::read;

/// The time from a change to writing the file: a kill loses no more.
const SAVE_AFTER: Duration = Duration::from_secs(60);
/// Maximum mailboxes that are remembered as usable.
const MAX_SEEN: usize = 4_096;

/// The value of `--greylist`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreylistConfig {
    /// The time before a second try counts.
    pub delay: Duration,
    /// The file that keeps the list over a restart.
    pub file: Option<PathBuf>,
}

impl GreylistConfig {
    /// Checks that the directory of the file exists, without touching the file: a server may be running.
    ///
    /// # Errors
    /// It does not exist.
    pub fn check(&self) -> Result<(), Failure> {
        let missing = |file: &&PathBuf| {
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
            dir.is_some_and(|dir| !dir.is_dir())
        };
        match self.file.as_ref().filter(missing) {
            Some(file) => {
                let reason = "--greylist: its directory does not exist; create it";
                Err(FileError::new(file, None, reason).into())
            }
            None => Ok(()),
        }
    }
}

/// The list that all connections share.
pub struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
    /// The file, written by one thread at a time.
    file: Option<Mutex<PathBuf>>,
}

/// A recipient that a client asks for.
pub struct Query<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The reverse-path.
    pub from: &'a str,
    /// The forward-path.
    pub to: &'a str,
    /// The numbers of the mailboxes that it leads to.
    pub mailboxes: &'a [u64],
    /// Octets of the message, as far as they were declared.
    pub size: u64,
    /// Seconds since 1970.
    pub now: u64,
}

/// Mailboxes that were checked within this second, each with the largest message that it could take.
#[derive(Default)]
struct SeenMailboxes {
    second: u64,
    mailboxes: HashMap<u64, u64>,
}

impl SeenMailboxes {
    fn has(&self, query: &Query<'_>) -> bool {
        let fits = |mailbox| self.mailboxes.get(mailbox);
        let fits = |mailbox| fits(mailbox).is_some_and(|&size| query.size <= size);
        self.second == query.now && query.mailboxes.iter().all(fits)
    }

    fn add(&mut self, query: &Query<'_>) {
        let more = query.mailboxes.iter().take(MAX_SEEN);
        if self.second != query.now || self.mailboxes.len() + more.len() > MAX_SEEN {
            self.mailboxes.clear();
            self.second = query.now;
        }
        let sizes = more.map(|&mailbox| (mailbox, query.size));
        self.mailboxes.extend(sizes);
    }
}

struct State {
    list: Greylist,
    seen: SeenMailboxes,
    /// True if the file is out of date.
    changed: bool,
}

impl Keeper {
    /// Reads the file. A damaged one is ignored with a warning, and the list begins empty.
    ///
    /// # Errors
    /// The file cannot be read, or its directory cannot be written to.
    pub fn open(config: &GreylistConfig) -> Result<Self, Failure> {
        let read = config.file.as_deref().map(|path| read(path, config.delay));
        let list = match read.transpose()?.flatten() {
            Some(list) => list,
            None => empty(config.delay)?,
        };
        Ok(Self {
            state: Mutex::new(State {
                list,
                seen: SeenMailboxes::default(),
                changed: false,
            }),
            changed: Condvar::new(),
            file: config.file.clone().map(Mutex::new),
        })
    }

    /// Decides on one recipient; `look` checks on the disk that it could be accepted. A deferred recipient costs one
    /// look per second and mailbox, however many there are; a recipient that passes costs one each time.
    ///
    /// # Errors
    /// Those of `look`; the list is then unchanged.
    pub fn check<E>(
        &self,
        query: &Query<'_>,
        look: &dyn Fn() -> Result<(), E>,
    ) -> Result<Decision, E> {
        let seen = lock(&self.state).seen.has(query);
        if !seen {
            look()?;
        }
        let decision = self.decide(query, !seen);
        if seen && decision == Decision::Pass {
            look()?;
        }
        Ok(decision)
    }

    fn decide(&self, query: &Query<'_>, looked: bool) -> Decision {
        let mut state = lock(&self.state);
        if looked {
            state.seen.add(query);
        }
        let (client, now) = (query.client, query.now);
        let decision = state.list.check(client, query.from, query.to, now);
        if !state.changed {
            state.changed = true;
            self.changed.notify_one();
        }
        decision
    }

    /// Starts the thread that writes the file, if there is one. It sleeps while nothing changes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let own = Arc::clone(self);
        let run = move || {
            loop {
                own.wait();
                std::thread::sleep(SAVE_AFTER);
                own.save();
            }
        };
        std::thread::Builder::new().spawn(run).map(|_| ())
    }

    fn wait(&self) {
        let mut state = lock(&self.state);
        while !state.changed {
            state = wait(&self.changed, &self.state, state);
        }
    }

    /// Writes the file if it is out of date. An error is logged and the file stays out of date.
    pub fn save(&self) {
        let Some(path) = &self.file else { return };
        let path = lock(path);
        let mut state = lock(&self.state);
        if !std::mem::take(&mut state.changed) {
            return;
        }
        let octets = state.list.save();
        drop(state);
        if let Err(error) = replace(&path, &octets) {
            log::error!("--greylist: {error}");
            lock(&self.state).changed = true;
        }
    }
}

fn empty(delay: Duration) -> Result<Greylist, Failure> {
    let secret = random::octets().map_err(|e| Failure::System(format!("--greylist: {e}")))?;
    Ok(Greylist::new(delay, secret))
}

/// Reads the list; `None` if the file is missing or damaged. Also checks that the directory is writable.
fn read(path: &Path, delay: Duration) -> Result<Option<Greylist>, Failure> {
    let fault = |error| FileError::new(path, None, format_args!("--greylist: {error}"));
    let octets = match read::whole(path) {
        Ok(octets) => Some(octets),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(fault(format!("cannot read: {e}")).into()),
    };
    let half = half(path);
    let tried = create(&half).and_then(|_| std::fs::remove_file(&half));
    tried.map_err(|e| fault(format!("cannot write {}: {e}", half.display())))?;
    let list = octets
        .as_ref()
        .and_then(|octets| Greylist::load(delay, octets));
    if list.is_none() && octets.is_some() {
        log::warn!("{}: damaged, the greylist begins empty", path.display());
    }
    Ok(list)
}

/// Replaces the file atomically; after a power cut either the old or the new one is intact.
fn replace(path: &Path, octets: &[u8]) -> Result<(), String> {
    let half = half(path);
    let at = |call: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| format!("{call} {path}: {e}")
    };
    let mut file = create(&half).map_err(at("open", &half))?;
    file.write_all(octets).map_err(at("write", &half))?;
    file.sync_all().map_err(at("fsync", &half))?;
    std::fs::rename(&half, path).map_err(at("rename", &half))?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    match File::open(parent).and_then(|dir| dir.sync_all()) {
        // Some file systems have no sync for directories.
        Err(e) if e.kind() != ErrorKind::InvalidInput => Err(at("fsync", parent)(e)),
        _ => Ok(()),
    }
}

/// The name of a file that is being written.
fn half(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".half");
    PathBuf::from(name)
}

/// Creates a private file. A leftover of a crash is removed first, and no link is followed.
fn create(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    const NOW: u64 = 1_800_000_000;

    fn config(dir: &Scratch) -> GreylistConfig {
        GreylistConfig {
            delay: Duration::from_secs(300),
            file: Some(dir.0.join("grey")),
        }
    }

    const QUERY: Query<'_> = Query {
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        from: "a@x",
        to: "b@y",
        mailboxes: &[1],
        size: 0,
        now: NOW,
    };

    fn check(keeper: &Keeper, now: u64) -> Decision {
        let query = Query { now, ..QUERY };
        keeper.check(&query, &|| Ok::<_, ()>(())).unwrap()
    }

    /// A flood of new triples costs one look at the disk a second and mailbox. What is accepted, what did not fit and
    /// what is larger than before is looked at each time.
    #[test]
    fn a_flood_costs_no_looks() {
        let keeper = Keeper::open(&GreylistConfig {
            delay: Duration::from_secs(300),
            file: None,
        });
        let keeper = keeper.unwrap();
        let looks = Cell::new(0);
        let ask = |query: &Query<'_>, fit: Result<(), ()>| {
            let look = || {
                looks.set(looks.get() + 1);
                fit
            };
            (keeper.check(query, &look), looks.replace(0))
        };
        let wait = Ok(Decision::Wait);
        assert_eq!(ask(&QUERY, Err(())), (Err(()), 1));
        assert_eq!(ask(&QUERY, Ok(())), (wait, 1), "a failure is not kept");
        for number in 0..10_000 {
            let from = &format!("{number}@spam");
            assert_eq!(ask(&Query { from, ..QUERY }, Ok(())), (wait, 0));
        }
        let mailboxes = &[1, 2];
        let list = Query { mailboxes, ..QUERY };
        assert_eq!(ask(&list, Ok(())), (wait, 1), "another mailbox");
        let larger = Query { size: 1, ..QUERY };
        assert_eq!(ask(&larger, Ok(())), (wait, 1));
        let later = Query {
            now: NOW + 299,
            ..QUERY
        };
        assert_eq!(ask(&later, Ok(())), (wait, 1), "another second");
        assert_eq!(ask(&later, Ok(())), (wait, 0));
        let in_time = Query {
            now: NOW + 300,
            ..QUERY
        };
        for _ in 0..3 {
            assert_eq!(ask(&in_time, Ok(())), (Ok(Decision::Pass), 1));
        }
        assert_eq!(ask(&in_time, Err(())), (Err(()), 1));
        for mailbox in 0..10_000 {
            let mailboxes = &[mailbox];
            let query = Query { mailboxes, ..QUERY };
            assert_eq!(ask(&query, Ok(())).1, 1);
        }
        assert!(lock(&keeper.state).seen.mailboxes.len() <= MAX_SEEN);
    }

    /// The next process knows what the last one deferred, and nobody else can read it.
    #[test]
    fn a_file_outlives_the_process() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = Scratch::new();
        let keeper = Keeper::open(&config(&dir)).unwrap();
        keeper.save();
        assert!(!dir.0.join("grey").exists(), "nothing to keep yet");
        assert_eq!(check(&keeper, NOW), Decision::Wait);
        keeper.save();
        let next = Keeper::open(&config(&dir)).unwrap();
        assert_eq!(check(&next, NOW + 299), Decision::Wait);
        assert_eq!(check(&next, NOW + 300), Decision::Pass);
        next.save();
        let known = Keeper::open(&config(&dir)).unwrap();
        assert_eq!(check(&known, NOW + 301), Decision::Pass);
        let mode = dir.0.join("grey").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
    }

    /// A damaged file is an empty list, and the next save repairs it. A half-written file of a crash does no harm.
    #[test]
    fn damage_is_survived() {
        let dir = Scratch::new();
        std::fs::write(dir.0.join("grey"), b"mailslot-grey-1\nshort").unwrap();
        std::fs::write(dir.0.join("grey.half"), b"half").unwrap();
        let keeper = Keeper::open(&config(&dir)).unwrap();
        assert_eq!(check(&keeper, NOW), Decision::Wait);
        keeper.save();
        let next = Keeper::open(&config(&dir)).unwrap();
        assert_eq!(check(&next, NOW + 300), Decision::Pass);
    }

    /// A planted link in place of the temporary file is not followed.
    #[test]
    fn no_link_is_followed() {
        let dir = Scratch::new();
        let victim = dir.0.join("victim");
        std::fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.0.join("grey.half")).unwrap();
        let keeper = Keeper::open(&config(&dir)).unwrap();
        std::os::unix::fs::symlink(&victim, dir.0.join("grey.half")).unwrap();
        check(&keeper, NOW);
        keeper.save();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(dir.0.join("grey").metadata().unwrap().len() > 40);
    }

    /// An unusable file fails the start. Later errors are retried.
    #[test]
    fn unusable_paths() {
        let dir = Scratch::new();
        let mut config = config(&dir);
        // Reading it would not end.
        std::os::unix::fs::symlink("/dev/zero", dir.0.join("zero")).unwrap();
        for path in ["missing/grey", ".", "zero"] {
            config.file = Some(dir.0.join(path));
            let failure = Keeper::open(&config).err().unwrap();
            let path = dir.0.join(path).display().to_string();
            assert!(failure.to_string().contains(&path), "{failure}");
            assert_eq!(failure.status(), 78);
        }
        let below = dir.0.join("below");
        std::fs::create_dir(&below).unwrap();
        config.file = Some(below.join("grey"));
        let keeper = Keeper::open(&config).unwrap();
        check(&keeper, NOW);
        std::fs::remove_dir(&below).unwrap();
        keeper.save();
        std::fs::create_dir(&below).unwrap();
        keeper.save();
        let next = Keeper::open(&config).unwrap();
        assert_eq!(check(&next, NOW + 300), Decision::Pass);
    }
}
