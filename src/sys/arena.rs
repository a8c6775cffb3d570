//! The allocator of glibc under a limit of address space (RLIMIT_AS). It reserves 64 MiB for each of several threads as
//! long as there is any left, and then needs a page or more for each allocation of the other threads, until one fails
//! and ends the process. With a single arena it needs what the program does.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// The variable that glibc reads before anything is allocated.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again with a single arena if its address space is limited. If that is not possible, as without
/// /proc, it goes on as it is.
pub fn limit(args: &[OsString]) {
    let limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    if !limited || env::var_os(ARENAS).is_some() {
        return;
    }
    if let (Some((name, args)), Ok(own)) = (args.split_first(), env::current_exe()) {
        let mut again = Command::new(own);
        // It only returns with an error.
        let _ = again.arg0(name).args(args).env(ARENAS, "1").exec();
    }
}
