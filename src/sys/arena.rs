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
    if !limited || env::var_os(ARENAS).is_some() {
        return;
    }
    let text = |text: &OsStr| CString::new(text.as_bytes()).ok();
    let mut variables = vec![OsString::from(format!("{ARENAS}=1"))];
    for (mut variable, value) in env::vars_os() {
        variable.push("=");
        variable.push(value);
        variables.push(variable);
    }
    let all = |texts: &[OsString]| texts.iter().filter_map(|one| text(one)).collect::<Vec<_>>();
    if let Some(own) = env::current_exe()
        .ok()
        .and_then(|path| text(path.as_os_str()))
    {
        // It only returns with an error.
        let _ = execve(&own, &all(args), &all(&variables));
    }
}
