//! The resolver: hosts file, cache, then the name servers in turn.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use super::alabel::to_alabel;
use super::cache::Cache;
use super::exchange;
use super::message::{self, Answer, Data, Mx, RecordType};
use super::servers::Servers;
use crate::lock::lock;
use crate::net::names::{self, HOSTS};
use crate::read;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Maximum aliases followed from answer to answer.
const MAX_ALIASES: usize = 8;

/// Why a name has no addresses or exchangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The name does not exist.
    NoSuchName,
    /// The name exists, but has no such records.
    NoData,
    /// A temporary failure, and the reason.
    Temporary(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("no such host"),
            Self::NoData => f.write_str("the host has no address"),
            Self::Temporary(why) => f.write_str(why),
        }
    }
}

/// Looks up names; shared by all threads.
#[derive(Debug)]
pub struct Resolver {
    hosts: PathBuf,
    /// The text of the hosts file, for a chroot where it cannot be read.
    known_hosts: String,
    /// The path of resolv.conf, and its last modification time.
    resolv_conf: Option<PathBuf>,
    servers: Mutex<(Servers, Option<SystemTime>)>,
    cache: Cache,
    /// When every look-up ends, if there is a limit.
    pub(super) end: Option<Instant>,
}

impl Resolver {
    /// Uses the system's files. They are read here once, so that the name servers and, with `chroot`, the hosts are
    /// known after a chroot. It is needed until the process ends.
    pub fn system(chroot: bool) -> &'static Self {
        Box::leak(Box::new(Self::of_system(chroot, None)))
    }

    /// Uses the system's files, and ends every look-up at a time.
    pub fn of_system(chroot: bool, end: Option<Instant>) -> Self {
        let path = Path::new(RESOLV_CONF);
        let servers = Servers::parse(&read::system_file(path).unwrap_or_default());
        let known_hosts = chroot.then(|| read::system_file(HOSTS).unwrap_or_default());
        Self {
            known_hosts: known_hosts.unwrap_or_default(),
            resolv_conf: Some(path.to_owned()),
            servers: Mutex::new((servers, changed(path))),
            end,
            ..Self::new(Path::new(HOSTS), Servers::default())
        }
    }

    /// Uses the given hosts file and servers.
    pub fn new(hosts: &Path, servers: Servers) -> Self {
        Self {
            hosts: hosts.to_owned(),
            known_hosts: String::new(),
            resolv_conf: None,
            servers: Mutex::new((servers, None)),
            cache: Cache::default(),
            end: None,
        }
    }

    /// The addresses of a host, IPv6 before IPv4. A host in the hosts file is not looked up elsewhere. A name with few
    /// dots is tried in the search domains first (resolv.conf(5)), except with a dot at its end.
    ///
    /// # Errors
    /// The host has none, or the look-up failed.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let host = name.strip_suffix('.').unwrap_or(name);
        let is_whole = host.len() < name.len();
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let known = match read::system_file(&self.hosts) {
            Ok(text) => names::addresses_in(&text, host),
            Err(_) => names::addresses_in(&self.known_hosts, host),
        };
        if !known.is_empty() {
            return Ok(known);
        }
        let name = to_alabel(host).ok_or(Error::NoSuchName)?;
        let servers = self.servers();
        let mut failure = None;
        if !is_whole && name.matches('.').count() < servers.ndots {
            for domain in &servers.search {
                match self.both_families(&format!("{name}.{domain}"), &servers) {
                    Err(Error::NoSuchName | Error::NoData) => {}
                    // One domain whose servers fail does not hide the others.
                    Err(error) => failure = Some(error),
                    found => return found,
                }
            }
        }
        let found = self.both_families(&name, &servers);
        found.map_err(|error| failure.unwrap_or(error))
    }

    /// The MX records of a domain, in no particular order.
    ///
    /// # Errors
    /// The host has none, or the look-up failed.
    pub fn mx(&self, domain: &str) -> Result<Vec<Mx>, Error> {
        let name =
            to_alabel(domain.strip_suffix('.').unwrap_or(domain)).ok_or(Error::NoSuchName)?;
        let data = self.look_up(&name, RecordType::Mx, &self.servers())?;
        let exchangers = data
            .into_iter()
            .filter_map(|datum| match datum {
                Data::Mx(mx) => Some(mx),
                Data::Address(_) => None,
            })
            .collect();
        Ok(exchangers)
    }

    fn both_families(&self, name: &str, servers: &Servers) -> Result<Vec<IpAddr>, Error> {
        // Some servers know no name that has only the other kind of address (RFC 4074 §4.2), so both are asked for.
        let six = self.look_up(name, RecordType::Aaaa, servers);
        let four = self.look_up(name, RecordType::A, servers);
        let data = match (six, four) {
            (Ok(six), Ok(four)) => [six, four].concat(),
            (Ok(data), Err(_)) | (Err(_), Ok(data)) => data,
            (Err(Error::Temporary(why)), _) | (_, Err(Error::Temporary(why))) => {
                return Err(Error::Temporary(why));
            }
            (Err(_), Err(error)) => return Err(error),
        };
        let addresses = data.into_iter().filter_map(|datum| match datum {
            Data::Address(address) => Some(address),
            Data::Mx(_) => None,
        });
        Ok(addresses.collect())
    }

    /// Follows aliases across answers.
    fn look_up(&self, name: &str, kind: RecordType, servers: &Servers) -> Result<Vec<Data>, Error> {
        let mut name = name.to_owned();
        for _ in 0..MAX_ALIASES {
            match self.ask(&name, kind, servers)? {
                Answer::Found(data, _) => return Ok(data),
                Answer::Alias(target, _) => name = target,
                Answer::NoData(_) => return Err(Error::NoData),
                Answer::NoName(_) => return Err(Error::NoSuchName),
            }
        }
        Err(Error::Temporary(format!("{name}: too many aliases")))
    }

    fn ask(&self, name: &str, kind: RecordType, servers: &Servers) -> Result<Answer, Error> {
        if let Some(answer) = self.cache.get(name, kind, Instant::now()) {
            return Ok(answer);
        }
        if message::question(0, name, kind).is_none() {
            return Err(Error::NoSuchName);
        }
        let mut why = "no name server is known".to_owned();
        for _ in 0..servers.attempts {
            for &server in &servers.addresses {
                let left = self.end.map_or(servers.timeout, |end| {
                    end.saturating_duration_since(Instant::now())
                        .min(servers.timeout)
                });
                match exchange::ask(server, name, kind, left) {
                    Ok(answer) => {
                        self.cache.put(name, kind, &answer, Instant::now());
                        return Ok(answer);
                    }
                    Err(e) => why = format!("{name}: {e}"),
                }
            }
        }
        Err(Error::Temporary(why))
    }

    /// The servers, reloaded if their file has changed.
    fn servers(&self) -> Servers {
        let mut known = lock(&self.servers);
        if let Some(path) = &self.resolv_conf {
            let now = changed(path);
            if now.is_some()
                && now != known.1
                && let Ok(text) = read::system_file(path)
            {
                *known = (Servers::parse(&text), now);
            }
        }
        known.0.clone()
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
}
