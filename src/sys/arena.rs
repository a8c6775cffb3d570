//! The allocator of glibc under a limit of address space (RLIMIT_AS). It reserves 64 MiB for each of several threads as
//! long as there is any left, and then needs a page or more for each allocation of the other threads, until one fails
//! and ends the process. With a single arena it needs what the program does.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::execve;

/// The variable that glibc reads before anything is allocated.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again with a single arena if its address space is limited. If that is not possible, as without
/// /proc, it goes on as it is.
pub fn limit(args: &[OsString]) {
    let limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    if limited && env::var_os(ARENAS).is_none() {
        // It only returns with an error.
        let _ = again(args);
    }
}

fn again(args: &[OsString]) -> Option<()> {
    let text = |parts: &[&OsStr]| {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        CString::new(parts.concat()).ok()
    };
    let own = text(&[env::current_exe().ok()?.as_os_str()])?;
    let args: Option<Vec<CString>> = args.iter().map(|arg| text(&[arg])).collect();
    let mut variables: Vec<(OsString, OsString)> = env::vars_os().collect();
    variables.push((ARENAS.into(), "1".into()));
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| text(&[name, OsStr::new("="), value]));
    let variables: Option<Vec<CString>> = variables.collect();
    execve(&own, &args?, &variables?).ok().map(drop)
}
