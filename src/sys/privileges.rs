//! Giving up privileges for good: `--chroot`, `--run-as`. Both happen after listeners are bound and files are read. Any
//! failure stops the start: a server with unexpected rights is worse than none.
//!
//! Other threads may exist by then: the C library changes the ids of all of them, and per-thread attributes are checked
//! for each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::sys::ids;

/// The user that the server runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User id, never 0.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl RunAs {
    /// `USER[:GROUP]`, names or numbers. Without a group it is the user's own; an unknown number is used as the group
    /// as well.
    ///
    /// # Errors
    /// An unknown name, or root.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let uid = ids::user_id(user)?;
        let gid = match group {
            Some(group) => ids::group_id(group)?,
            None => ids::primary_group(user).unwrap_or(uid),
        };
        if uid == 0 || uid == u32::MAX || gid == u32::MAX {
            return Err(format!(
                "'{text}' gives up nothing; use a user other than root"
            ));
        }
        Ok(Self { uid, gid })
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} and gid {}", self.uid, self.gid)
    }
}

/// The privileges to give up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// `--run-as`.
    pub run_as: Option<RunAs>,
    /// `--chroot`.
    pub chroot: Option<PathBuf>,
}

impl Privileges {
    /// Sentences for the log and `--check`.
    pub fn describe(&self) -> Vec<String> {
        let root = self.chroot.as_ref().map(|dir| {
            let dir = dir.display();
            format!(
                "after the start {dir} is the root directory: mail goes to paths inside it, and \
                 a reload reads its files there"
            )
        });
        let user = self.run_as.map(|run_as| {
            format!("after the start it runs with {run_as}: a reload reads its files as that user")
        });
        root.into_iter().chain(user).collect()
    }

    /// Gives them up.
    ///
    /// # Errors
    /// The call that failed, or the rights that were left: exit status 71.
    pub fn give_up(&self) -> Result<(), Failure> {
        if let Some(dir) = &self.chroot {
            enter(dir).map_err(|(call, e)| {
                Failure::System(format!("--chroot: {call} {}: {e}", dir.display()))
            })?;
        }
        let Some(run_as) = self.run_as else {
            return Ok(());
        };
        let dropped = platform::become_user(run_as.uid, run_as.gid)
            .and_then(|()| platform::nothing_left(run_as.uid, run_as.gid));
        dropped.map_err(|reason| Failure::System(format!("--run-as: {reason}")))
    }
}

/// Sets the umask so that new files are private.
pub fn set_umask() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Drops supplementary groups, so that a thread that assumes a user's rights has none of root's. In a user namespace
/// this may be impossible, and the groups stay.
pub fn drop_groups() {
    #[cfg(target_os = "linux")]
    if let Err(e) = nix::unistd::setgroups(&[]) {
        log::warn!("setgroups: {}: the server keeps its groups", e.desc());
    }
}

fn enter(dir: &Path) -> Result<(), (&'static str, io::Error)> {
    let fault = |call| move |e: nix::Error| (call, io::Error::from(e));
    nix::unistd::chdir(dir).map_err(fault("chdir"))?;
    nix::unistd::chroot(".").map_err(fault("chroot"))?;
    nix::unistd::chdir("/").map_err(fault("chdir"))
}

#[cfg(target_os = "linux")]
mod platform {
    use caps::CapSet;
    use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

    /// The sets of capabilities(7) in /proc/PID/status.
    pub(super) const SETS: [&str; 5] = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    const TASKS: &str = "/proc/self/task";

    /// Real, effective and saved ids, supplementary groups, all sets of capabilities.
    pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), String> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        // Only possible as root: the bounding set needs a capability to be changed.
        let bounding = caps::clear(None, CapSet::Bounding).map_err(|e| e.to_string());
        if getgroups().map_or(true, |groups| groups.iter().any(|group| *group != gid)) {
            setgroups(&[]).map_err(|e| format!("setgroups: {}", e.desc()))?;
        }
        setresgid(gid, gid, gid).map_err(|e| format!("setresgid: {}", e.desc()))?;
        setresuid(uid, uid, uid).map_err(|e| format!("setresuid: {}", e.desc()))?;
        for set in [
            CapSet::Ambient,
            CapSet::Inheritable,
            CapSet::Effective,
            CapSet::Permitted,
        ] {
            caps::clear(None, set).map_err(|e| e.to_string())?;
        }
        nix::sys::prctl::set_no_new_privs().map_err(|e| format!("prctl: {}", e.desc()))?;
        bounding
    }

    /// Verifies the effect of `become_user` with the kernel's own data, and that it cannot be undone.
    pub(super) fn nothing_left(uid: u32, gid: u32) -> Result<(), String> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let users = getresuid().map_err(|e| format!("getresuid: {}", e.desc()))?;
        let groups = getresgid().map_err(|e| format!("getresgid: {}", e.desc()))?;
        if [users.real, users.effective, users.saved] != [uid; 3] {
            return Err("the user id was not changed for good".to_owned());
        }
        if [groups.real, groups.effective, groups.saved] != [gid; 3] {
            return Err("the group id was not changed for good".to_owned());
        }
        let more = getgroups().map_err(|e| format!("getgroups: {}", e.desc()))?;
        if more.iter().any(|group| *group != gid) {
            return Err("supplementary groups are left".to_owned());
        }
        if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
            return Err("root's rights can be regained".to_owned());
        }
        capabilities()
    }

    /// Without /proc, as after a chroot, system calls are used instead.
    fn capabilities() -> Result<(), String> {
        let Ok(tasks) = std::fs::read_dir(TASKS) else {
            return own_capabilities();
        };
        let main = format!("{TASKS}/{}/status", std::process::id());
        for task in tasks {
            let task = task.map_err(|e| format!("{TASKS}: {e}"))?;
            let path = task.path().join("status");
            let Ok(status) = std::fs::read_to_string(&path) else {
                continue; // that thread has ended
            };
            // Threads that started earlier keep their bounding set, which is of no use to them.
            let bounding = path == std::path::Path::new(&main);
            if let Some(set) = left(&status, bounding) {
                return Err(format!("capabilities are left: {set}"));
            }
        }
        Ok(())
    }

    /// The first set that is not empty.
    pub(super) fn left(status: &str, bounding: bool) -> Option<&str> {
        status.lines().find(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            let counts = SETS.contains(&name) && (bounding || name != "CapBnd:");
            counts && words.any(|word| word.bytes().any(|digit| digit != b'0'))
        })
    }

    fn own_capabilities() -> Result<(), String> {
        for set in [
            CapSet::Ambient,
            CapSet::Inheritable,
            CapSet::Effective,
            CapSet::Permitted,
            CapSet::Bounding,
        ] {
            let left = caps::read(None, set).map_err(|e| e.to_string())?;
            if !left.is_empty() {
                return Err(format!("capabilities are left: {set:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid, setgid, setuid};

    /// As root these set the saved ids, too (POSIX, setuid).
    pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), String> {
        let gid = Gid::from_raw(gid);
        #[cfg(not(target_vendor = "apple"))]
        nix::unistd::setgroups(&[gid]).map_err(|e| format!("setgroups: {}", e.desc()))?;
        setgid(gid).map_err(|e| format!("setgid: {}", e.desc()))?;
        setuid(Uid::from_raw(uid)).map_err(|e| format!("setuid: {}", e.desc()))
    }

    pub(super) fn nothing_left(uid: u32, gid: u32) -> Result<(), String> {
        let users = [getuid(), geteuid()].map(Uid::as_raw);
        let groups = [getgid(), getegid()].map(Gid::as_raw);
        if users != [uid; 2] || groups != [gid; 2] {
            return Err("the ids were not changed for good".to_owned());
        }
        match setuid(Uid::from_raw(0)) {
            Ok(()) => Err("root's rights can be regained".to_owned()),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        let ids = |text| RunAs::parse(text).map(|run_as| (run_as.uid, run_as.gid));
        assert_eq!(ids("3999999:5"), Ok((3_999_999, 5)));
        assert_eq!(ids("3999999"), Ok((3_999_999, 3_999_999)));
        for wrong in [
            "0",
            "0:5",
            "",
            ":5",
            "5:",
            "no-such-user",
            "5:no-such-group",
            "4294967295",
            "-1",
        ] {
            assert!(ids(wrong).is_err(), "{wrong}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_capability_in_any_set_is_found() {
        let status = |set: &str| {
            let line = |name: &str| {
                let bits = if name == set {
                    "0000000000000400"
                } else {
                    "0000000000000000"
                };
                format!("{name}\t{bits}\n")
            };
            let lines = platform::SETS.map(line);
            format!("Name:\tmailslot\nUid:\t8\t8\t8\t8\n{}", lines.concat())
        };
        assert_eq!(platform::left(&status(""), true), None);
        assert_eq!(platform::left(&status("CapBnd:"), false), None);
        for set in platform::SETS {
            assert!(platform::left(&status(set), true).is_some_and(|line| line.starts_with(set)));
        }
    }
}
