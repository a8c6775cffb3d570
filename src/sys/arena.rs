//! The allocator of glibc under a limit of address space (RLIMIT_AS). It reserves 64 MiB for each of several threads as
//! long as there is any left, and then needs a page or more for each allocation of the other threads, until one fails
//! and ends the process. With a single arena it needs what the program does.

use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::execve;

/// The variable that glibc reads before anything is allocated.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again with a single arena if its address space is limited. If that is not possible, as without
/// /proc, it goes on as it is.
pub fn limit(args: &[OsString]) {
    let limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    if !limited || env::var_os(ARENAS).is_some() {
        return;
    }
    let variables = env::vars_os().chain([(ARENAS.into(), "1".into())]);
    let variables = variables.map(|(name, value)| text(&[&name, "=".as_ref(), &value]));
    let args = args.iter().map(|arg| text(&[arg]));
    if let (Ok(own), Ok(args), Ok(variables)) = (
        env::current_exe(),
        args.collect::<Result<Vec<_>, _>>(),
        variables.collect::<Result<Vec<_>, _>>(),
    ) && let Ok(own) = text(&[own.as_os_str()])
    {
        // It only returns with an error.
        let _ = execve(&own, &args, &variables);
    }
}

/// The parts as one text for a system call.
fn text(parts: &[&OsStr]) -> Result<CString, NulError> {
    let octets: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    CString::new(octets.concat())
}
