//! The allocator of glibc under a limit of address space (RLIMIT_AS). It reserves 64 MiB for each of several threads as
//! long as there is any left, and then needs a page or more for each allocation of the other threads, until one fails
//! and ends the process. With a single arena it needs what the program does.

use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::execve;

/// The variable that glibc reads before anything is allocated.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again with a single arena if its address space is limited. If that is not possible, as without
/// /proc, it goes on as it is.
pub fn limit() {
    let limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    if limited && env::var_os(ARENAS).is_none() {
        again();
    }
}

/// It only returns if it fails.
fn again() -> Option<()> {
    let own = env::current_exe().ok()?.into_os_string().into_vec();
    let args = texts("/proc/self/cmdline")?;
    let mut variables = texts("/proc/self/environ")?;
    variables.push(CString::new(format!("{ARENAS}=1")).ok()?);
    execve(&CString::new(own).ok()?, &args, &variables).ok()?;
    None
}

/// The texts of a file, each with a NUL after it.
fn texts(path: &str) -> Option<Vec<CString>> {
    let octets = std::fs::read(path).ok()?;
    let texts = octets.split_inclusive(|octet| *octet == 0);
    let texts = texts.map(|text| CString::from_vec_with_nul(text.to_vec()).ok());
    texts.collect()
}
