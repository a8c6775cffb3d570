//! The resources of the process (descriptors, address space, memory), and how many connections they are enough for;
//! further ones get 421. Without a descriptor a message would get 451, without memory the process would end.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a message besides its connection's socket: its file, three directories of its own Maildir and of one
/// other, and those to open the other or to count its messages.
const MESSAGE: usize = 11;
/// Maximum messages that are expected to arrive at the same time.
const BUSY: usize = 256;
/// Descriptors of an open Maildir.
const MAILDIR: usize = 3;
/// Descriptors of everything else: listeners, files being read, the log, the queue.
const OTHERS: usize = 64;
/// The minimum of [`OTHERS`] under a low limit.
const OTHERS_LEAST: usize = 13;
/// Descriptors of a connection to a next hop: its socket, that of a question to DNS, and the content.
const SENDER: usize = 3;
/// Descriptors for which there may be one such connection.
const SENDERS_SHARE: usize = 32;
/// Refused connections that are not closed yet.
const LINGERING: usize = 64;
/// Descriptors of Maildirs kept open, if the system allows that many.
const OPEN: usize = 1_024;
/// Maildirs that a message to many recipients keeps open on average, if the system allows that many.
const HELD: usize = 64;
/// Octets of address space of a connection: its stack, that of a handshake or the buffers of a message, and a few
/// recipients.
const EACH_SPACE: u64 = 640 * 1024;
/// Octets of address space of everything else: program, allocator, the log's queue.
const OTHERS_SPACE: u64 = 12 * 1024 * 1024;
/// Maximum octets of memory of a connection: the buffers of a message in TLS, touched pages of its stack, the kernel's
/// data of a thread and a socket, a few recipients, and what a report of success returns.
const EACH_MEMORY: u64 = 288 * 1024;
/// Octets of memory of everything else.
const OTHERS_MEMORY: u64 = 8 * 1024 * 1024;
/// The part of address space and memory that is kept for further recipients, who also get what connections leave.
const RECIPIENTS: u64 = 8;
/// Maximum octets of a recipient: in memory with the longest address and parameters, also in the report about it, and
/// of address space, where the allocator may have to use a page for each part.
const RECIPIENT_MEMORY: u64 = 4 * 1024;
const RECIPIENT_SPACE: u64 = 40 * 1024;
/// Where Linux shows its control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The resources as shared out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Maximum connections.
    pub(super) connections: usize,
    /// Maximum recipients of all connections, beyond a few of each.
    pub(super) recipients: usize,
    /// Maximum connections to next hops.
    pub(super) senders: usize,
    /// Descriptors of Maildirs that are kept open for the next message.
    pub(super) open: usize,
    /// Maildirs that messages hold open together, besides the first one of each.
    pub(super) held: usize,
    /// Refused connections that are read to their end.
    pub(super) lingering: usize,
}

impl Budget {
    /// The budget of this process, for at most `max_connections`, and `senders` to next hops. Raises the limit of
    /// descriptors if that is needed and allowed.
    #[allow(
        clippy::useless_conversion,
        reason = "the widths differ between systems"
    )]
    pub(super) fn of_process(max_connections: usize, senders: usize) -> Self {
        let limit = |kind| getrlimit(kind).map_or(u64::MAX, |(soft, _)| soft.into());
        // On Linux the second counts stacks and large allocations, too.
        let space: u64 = limit(Resource::RLIMIT_AS).min(limit(Resource::RLIMIT_DATA));
        let wanted = max_connections.saturating_add(senders);
        let most = fit(wanted, space, OTHERS_SPACE, EACH_SPACE);
        warn("octets of address space", space, most, wanted);
        let memory = memory().unwrap_or(u64::MAX);
        let fitting = fit(most, memory, OTHERS_MEMORY, EACH_MEMORY);
        warn("octets of memory", memory, fitting, most);
        // If not all fit, one in four goes to next hops.
        let senders = match fitting < wanted {
            true => senders.min((fitting / 4).max(1)),
            false => senders,
        };
        let fitting = fitting.saturating_sub(senders).max(1);
        let limit = raise_descriptors(fitting, senders);
        let all = u64::try_from(fitting.saturating_add(senders)).unwrap_or(u64::MAX);
        let used = |others: u64, each: u64| others.saturating_add(each.saturating_mul(all));
        let recipients = pool(memory, used(OTHERS_MEMORY, EACH_MEMORY), RECIPIENT_MEMORY)
            .min(pool(space, used(OTHERS_SPACE, EACH_SPACE), RECIPIENT_SPACE))
            .min(pool(installed(), installed() / 2, RECIPIENT_MEMORY));
        let budget = Self {
            recipients,
            ..Self::of_descriptors(limit, fitting, senders)
        };
        let files = u64::try_from(limit).unwrap_or(u64::MAX);
        warn("open files", files, budget.connections, fitting);
        budget
    }

    /// The budget for a limit of descriptors.
    fn of_descriptors(limit: usize, max_connections: usize, senders: usize) -> Self {
        let lingering = LINGERING.min(limit / 8);
        let senders = senders.min(limit / SENDERS_SHARE);
        let others = (limit / 4).clamp(OTHERS_LEAST, OTHERS);
        let rest = limit.saturating_sub(others + lingering + senders * SENDER);
        let most = (rest / (1 + MESSAGE)).max(rest.saturating_sub(BUSY * MESSAGE));
        let connections = max_connections.min(most).max(1);
        let rest = rest.saturating_sub(needed(connections));
        let open = OPEN.min(rest / 2);
        Self {
            connections,
            recipients: usize::MAX,
            senders,
            open,
            held: ((rest - open) / MAILDIR).min(connections.saturating_mul(HELD)),
            lingering,
        }
    }
}

/// The descriptors of connections and of their messages.
fn needed(connections: usize) -> usize {
    connections.saturating_add(connections.min(BUSY) * MESSAGE)
}

/// The number of connections that `all` is enough for.
fn fit(max_connections: usize, all: u64, others: u64, each: u64) -> usize {
    let rest = all.saturating_sub(others + all / RECIPIENTS);
    let most = (rest / each).max(1);
    usize::try_from(most).map_or(max_connections, |most| most.min(max_connections))
}

/// The number of further recipients that there is room for, with so much of `all` in other use.
fn pool(all: u64, used: u64, each: u64) -> usize {
    let left = all.saturating_sub(used).max(all / RECIPIENTS);
    usize::try_from(left / each).unwrap_or(usize::MAX)
}

fn warn(what: &str, allowed: u64, enough: usize, wanted: usize) {
    if enough < wanted {
        log::warn!(
            "{allowed} {what} are allowed: enough for {enough} connections, not for {wanted}; further ones get 421"
        );
    }
}

/// Raises the limit of descriptors as far as the connections need and the system allows, and returns it.
fn raise_descriptors(max_connections: usize, senders: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let wanted = max_connections
        .saturating_mul(HELD * MAILDIR)
        .saturating_add(needed(max_connections) + OTHERS + LINGERING + 2 * OPEN)
        .saturating_add(senders.saturating_mul(SENDERS_SHARE));
    let wanted = wanted.try_into().unwrap_or(hard).min(hard);
    let raised = soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok();
    usize::try_from(if raised { wanted } else { soft }).unwrap_or(usize::MAX)
}

/// The memory of the host. Most connections take little of it, so it only limits recipients, to half of it.
fn installed() -> u64 {
    #[cfg(target_os = "linux")]
    return nix::sys::sysinfo::sysinfo().map_or(u64::MAX, |info| info.ram_total());
    #[cfg(not(target_os = "linux"))]
    u64::MAX
}

/// The memory that the control groups of this process allow, if it is limited.
fn memory() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let files = groups.lines().flat_map(memory_files);
    let limit = |file: PathBuf| read_to_string(file).ok()?.trim().parse::<u64>().ok();
    files.filter_map(limit).min()
}

/// The files with the limit of a group, as a line of /proc/self/cgroup names it, and of those above it (cgroups(7)). In
/// a container the path may be the host's, but the uppermost one is always there.
fn memory_files(line: &str) -> Vec<PathBuf> {
    let mut words = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (words.next(), words.next()) else {
        return Vec::new();
    };
    let (root, name) = match controllers {
        "" => (Path::new(GROUPS).to_owned(), "memory.max"),
        "memory" => (Path::new(GROUPS).join("memory"), "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let group = Path::new(path.trim_start_matches('/'));
    let all = group.ancestors().map(|group| root.join(group).join(name));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promises to all connections together never exceed the limit.
    #[test]
    fn descriptors_are_enough_for_admitted_connections() {
        for limit in (32..3_000).chain([10_000, 100_000, usize::MAX]) {
            for max in [1, 40, 512, 10_000] {
                let budget = Budget::of_descriptors(limit, max, 256);
                let held = budget.held * MAILDIR + budget.senders * SENDER;
                let all = needed(budget.connections) + held + budget.open + budget.lingering;
                assert!((1..=256).contains(&budget.senders));
                assert!(all <= limit, "{limit} {max}: {budget:?}");
                assert!((1..=max).contains(&budget.connections));
                assert!(budget.held <= HELD * budget.connections);
            }
        }
        let few = Budget::of_descriptors(64, 40, 0);
        let wanted = Budget {
            connections: 3,
            recipients: usize::MAX,
            senders: 0,
            open: 2,
            held: 0,
            lingering: 8,
        };
        assert_eq!(few, wanted);
        let plenty = Budget::of_descriptors(200_000, 512, 0);
        let wanted = Budget {
            connections: 512,
            recipients: usize::MAX,
            senders: 0,
            open: OPEN,
            held: HELD * 512,
            lingering: LINGERING,
        };
        assert_eq!(plenty, wanted);
        assert_eq!(Budget::of_descriptors(4_096, 512, 0).connections, 512);
        assert_eq!(
            Budget::of_descriptors(20_000, 12_500, 0).connections,
            12_500
        );
    }

    #[test]
    fn memory_is_enough_for_admitted_connections() {
        let mib = 1024 * 1024;
        assert_eq!(fit(512, 32 * mib, OTHERS_MEMORY, EACH_MEMORY), 71);
        assert_eq!(fit(512, mib, OTHERS_MEMORY, EACH_MEMORY), 1);
        assert_eq!(fit(512, u64::MAX, OTHERS_MEMORY, EACH_MEMORY), 512);
        assert_eq!(pool(32 * mib, 28 * mib, RECIPIENT_MEMORY), 1_024);
        assert_eq!(pool(32 * mib, 12 * mib, RECIPIENT_MEMORY), 5 * 1_024);
        assert!(pool(u64::MAX, u64::MAX, RECIPIENT_SPACE) > 1_000_000);
    }

    #[test]
    fn limits_of_groups_and_their_parents() {
        let files = |line| {
            let files = memory_files(line).into_iter();
            let files = files.map(|file| file.strip_prefix(GROUPS).unwrap_or(&file).to_owned());
            files.collect::<Vec<_>>()
        };
        let wanted = ["a/b/memory.max", "a/memory.max", "memory.max"];
        assert_eq!(files("0::/a/b"), wanted.map(PathBuf::from));
        let wanted = [
            "memory/a/memory.limit_in_bytes",
            "memory/memory.limit_in_bytes",
        ];
        assert_eq!(files("7:memory:/a"), wanted.map(PathBuf::from));
        assert_eq!(files("0::/"), [PathBuf::from("memory.max")]);
        for other in ["3:cpu,cpuacct:/a", "", "0", "0:"] {
            assert!(files(other).is_empty(), "{other}");
        }
    }
}
