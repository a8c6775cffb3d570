//! Postfix as a peer: smtpd, cleanup, qmgr and virtual of the installed package under a master of this run's own, with
//! configuration, queue and log in the run's directory, on the same file system as the mail. The Postfix of the system,
//! if there is one, is neither asked nor touched.
//!
//! Its 250 is for its queue, whose file it syncs; virtual(8) syncs the file in the Maildir later, and no directory.
//! Nothing is tuned but what would refuse, rewrite or hold up the load: in_flow_delay would have it sleep a second
//! whenever mail comes faster than it goes, which in a run of a few seconds is most of what there is to see. It cannot
//! be told to log less, so its log is part of its cost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::chown;

use crate::peers::{self, Owner};
use crate::place;
use crate::server::Process;

/// The installed package.
pub(crate) struct Postfix {
    postfix: PathBuf,
    master: PathBuf,
    /// The owner of its data directory.
    user: Owner,
    mail: Owner,
    pub(crate) version: String,
}

impl Postfix {
    /// Finds it, or returns the reason why it cannot take part.
    pub(crate) fn find() -> Result<Self, String> {
        let [postfix, postconf] = ["postfix", "postconf"].map(peers::installed);
        let (Some(postfix), Some(postconf)) = (postfix, postconf) else {
            return Err("it is not installed".to_owned());
        };
        let said = |name: &str| {
            let output = Command::new(&postconf).args(["-d", "-h", name]).output();
            let output = output.map_err(|e| format!("postconf: {e}"))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let version = said("mail_version")?;
        if peers::version(&version) < (3, 4) {
            return Err(format!("{version} cannot log to a file: 3.4 can"));
        }
        let user = Owner::of(&said("mail_owner")?)?;
        Ok(Self {
            master: Path::new(&said("daemon_directory")?).join("master"),
            mail: Owner::find()?,
            postfix,
            user,
            version,
        })
    }

    /// Starts it for a number of sessions, with the Maildirs in `dir`.
    pub(crate) fn start(&self, dir: &Path, sessions: usize) -> io::Result<Process> {
        self.mail.take(dir)?;
        let home = dir.join("postfix");
        let [etc, queue, data] = ["etc", "queue", "data"].map(|name| home.join(name));
        for path in [&etc, &queue, &data] {
            fs::create_dir_all(path)?;
        }
        chown(&data, Some(self.user.uid), None)?;
        let address = peers::free()?;
        let addresses = peers::maildirs(dir)?
            .iter()
            .map(|user| format!("{user}@bench.test {user}/\n"))
            .collect::<String>();
        fs::write(etc.join("mailboxes"), addresses)?;
        fs::write(etc.join("main.cf"), self.main(dir, &home, sessions))?;
        fs::write(
            etc.join("master.cf"),
            format!("{address} inet n - n - - smtpd\n{SERVICES}"),
        )?;
        self.make_queue(&etc)
            .map_err(|e| peers::with_log(&e, &home.join("log")))?;
        let mut command = Command::new(&self.master);
        // -s: a session of its own, in the foreground.
        command.arg("-c").arg(&etc).arg("-s");
        Process::told(command, address).map_err(|e| peers::with_log(&e, &home.join("log")))
    }

    /// The directories of the queue, as Postfix wants them.
    fn make_queue(&self, etc: &Path) -> io::Result<()> {
        let mut command = Command::new(&self.postfix);
        command.arg("-c").arg(etc).arg("check");
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = place::spawn(quiet)?;
        match place::wait(&mut child, Duration::from_secs(30))? {
            Some(0) => Ok(()),
            _ => {
                place::stop(&mut child)?;
                Err(io::Error::other("postfix check failed"))
            }
        }
    }

    fn main(&self, dir: &Path, home: &Path, sessions: usize) -> String {
        let (dir, home) = (dir.display(), home.display());
        let Owner { uid, gid } = self.mail;
        let processes = 2 * sessions + 100;
        format!(
            "compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
myhostname = bench.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 100000
local_header_rewrite_clients =
default_transport = error:no mail leaves the benchmark
default_process_limit = {processes}
in_flow_delay = 0
message_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = bench.test
virtual_mailbox_base = {dir}
virtual_mailbox_maps = texthash:{home}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"
        )
    }
}

/// The services of master.cf after smtpd.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";
