//! Dovecot's LMTP as a peer, and its submission-login: the installed package under a master of this run's own, with its
//! configuration, sockets and log in the run's directory. It delivers into the Maildirs before it says 250, and with
//! mail_fsync = always it syncs files and directories, as mailslot does; besides it keeps an index for its IMAP, which
//! mailslot does not.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peers::{self, Owner};
use crate::server::Process;

/// The installed package.
pub(crate) struct Dovecot {
    dovecot: PathBuf,
    mail: Owner,
    pub(crate) version: String,
}

impl Dovecot {
    /// Finds it, or returns the reason why it cannot take part.
    pub(crate) fn find() -> Result<Self, String> {
        let dovecot = peers::installed("dovecot").ok_or("it is not installed")?;
        let output = Command::new(&dovecot).arg("--version").output();
        let output = output.map_err(|e| format!("dovecot --version: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().next().unwrap_or_default();
        let version = version.to_owned();
        if peers::version(&version) != (2, 3) {
            return Err(format!("{version} has another configuration than 2.3"));
        }
        Ok(Self {
            dovecot,
            mail: Owner::find()?,
            version,
        })
    }

    /// Starts it for a number of sessions, with the Maildirs in `dir`.
    pub(crate) fn start(&self, dir: &Path, sessions: usize) -> io::Result<Process> {
        self.mail.take(dir)?;
        let home = dir.join("dovecot");
        fs::create_dir(&home)?;
        let address = peers::free()?;
        let text = self.configuration(dir, &home, address.port(), sessions);
        self.run(&home, &text, address)
    }

    /// Whether submission-login is installed.
    pub(crate) fn has_submission(&self) -> bool {
        Path::new("/usr/lib/dovecot/submission-login").exists()
    }

    /// Starts submission-login with the accounts of a passwd-file. `tls` has the certificate and the key as mailslot's
    /// options do.
    pub(crate) fn start_submission(
        &self,
        dir: &Path,
        users: &Path,
        tls: &[String],
    ) -> io::Result<Process> {
        let [_, cert, _, key] = tls else {
            return Err(io::Error::other("no certificate"));
        };
        let home = dir.join("dovecot");
        fs::create_dir(&home)?;
        let address = peers::free()?;
        let text = self.submission(&home, users, (cert, key), address.port());
        self.run(&home, &text, address)
    }

    fn run(&self, home: &Path, text: &str, address: SocketAddr) -> io::Result<Process> {
        let file = home.join("dovecot.conf");
        fs::write(&file, text)?;
        let mut command = Command::new(&self.dovecot);
        command.arg("-F").arg("-c").arg(&file);
        Process::told(command, address).map_err(|e| peers::with_log(&e, &home.join("log")))
    }

    fn submission(
        &self,
        home: &Path,
        users: &Path,
        (cert, key): (&str, &str),
        port: u16,
    ) -> String {
        let Owner { uid, gid } = self.mail;
        let (at, users) = (home.display(), users.display());
        format!(
            "base_dir = {at}/run
state_dir = {at}/state
log_path = {at}/log
info_log_path = /dev/null
protocols = submission
listen = 127.0.0.1
hostname = bench.test
mail_location = maildir:{at}/mail/%n
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
auth_mechanisms = plain scram-sha-256
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 1000
submission_relay_host = 127.0.0.1
submission_relay_port = 9
submission_backend_capabilities = 8BITMIME
passdb {{
  driver = passwd-file
  args = {users}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={at}/home/%n
}}
service submission-login {{
  service_count = 0
  process_min_avail = 2
  inet_listener submission {{
    port = {port}
  }}
}}
service submission {{
  service_count = 1000
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"
        )
    }

    fn configuration(&self, dir: &Path, home: &Path, port: u16, sessions: usize) -> String {
        let (dir, home) = (dir.display(), home.display());
        let Owner { uid, gid } = self.mail;
        // A process has one session at a time.
        let processes = 2 * sessions + 100;
        let clients = 20 * processes;
        format!(
            "base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
info_log_path = /dev/null
protocols = lmtp
listen = 127.0.0.1
ssl = no
hostname = bench.test
postmaster_address = postmaster@bench.test
mail_location = maildir:{dir}/%n
mail_fsync = always
first_valid_uid = 1
first_valid_gid = 1
default_client_limit = {clients}
default_process_limit = {processes}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}/home/%n allow_all_users=yes
}}
service lmtp {{
  process_limit = {processes}
  inet_listener lmtp {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"
        )
    }
}
