//! OpenSMTPD as a peer: its package installed, or unpacked (`dpkg -x`) into the directory that OPENSMTPD_ROOT names, as
//! Debian's cannot be installed beside Postfix. Its queue, its socket and its helpers have their paths compiled in, and
//! it wants users of its own; so it runs in a mount namespace where directories of the run lie over those paths, and a
//! passwd with these users and a resolv.conf without a server over the system's. Outside nothing of it is seen, and
//! with the process it is gone.
//!
//! Its 250 is for its queue, on the same file system as the mail; a process for each message delivers it later.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers::{self, Owner};
use crate::server::Process;

/// Its users, by the names that packages give them, and their numbers where the system has none.
const USERS: [(&str, u32); 4] = [
    ("opensmtpd", 64_801),
    ("opensmtpq", 64_802),
    ("_smtpd", 64_803),
    ("_smtpq", 64_804),
];

/// Run by unshare with the directory of the run and the one the package is in.
const SCRIPT: &str = r#"set -e
for over in var/spool run var/lib etc/passwd etc/group; do
    mount --bind "$1/$over" "/$over"
done
names=$(readlink -m /etc/resolv.conf)
case $names in /run/*) mkdir -p "${names%/*}"; : > "$names" ;; esac
[ ! -e "$names" ] || mount --bind "$1/etc/resolv.conf" "$names"
mount --bind "$2/usr/libexec" /usr/libexec
exec "$2/usr/sbin/smtpd" -d -f "$1/etc/smtpd.conf" > "$1/log" 2>&1"#;

/// The installed package.
pub(crate) struct Opensmtpd {
    root: PathBuf,
    mail: Owner,
    pub(crate) version: String,
}

impl Opensmtpd {
    /// Finds it, or returns the reason why it cannot take part.
    pub(crate) fn find() -> Result<Self, String> {
        let named = std::env::var_os("OPENSMTPD_ROOT").filter(|root| !root.is_empty());
        let root = named.map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let [program, helpers] =
            ["usr/sbin/smtpd", "usr/libexec/opensmtpd"].map(|path| root.join(path));
        if !program.is_file() || !helpers.is_dir() {
            return Err("it is neither installed nor unpacked in OPENSMTPD_ROOT".to_owned());
        }
        let said = Command::new(&program).arg("-h").output();
        let said = said.map_err(|e| format!("{}: {e}", program.display()))?;
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let words = text.strip_prefix("version: OpenSMTPD ");
        let Some(version) = words.and_then(|words| words.split_whitespace().next()) else {
            return Err(format!("{} does not run: {text}", program.display()));
        };
        let mail = Owner::find()?;
        let mut unshare = Command::new("unshare");
        let quiet = unshare.args(["--mount", "true"]).stderr(Stdio::null());
        if !quiet.status().is_ok_and(|status| status.success()) {
            return Err("it needs a mount namespace, which is not allowed here".to_owned());
        }
        let root = root.canonicalize().map_err(|e| e.to_string())?;
        Ok(Self {
            root,
            mail,
            version: version.to_owned(),
        })
    }

    /// Starts it with the Maildirs in `dir`.
    pub(crate) fn start(&self, dir: &Path) -> io::Result<Process> {
        self.mail.take(dir)?;
        let home = dir.join("opensmtpd");
        for path in ["etc", "run", "var/spool/smtpd", "var/lib/opensmtpd/empty"] {
            fs::create_dir_all(home.join(path))?;
        }
        // It insists.
        fs::set_permissions(home.join("var/spool/smtpd"), Permissions::from_mode(0o711))?;
        let address = peers::free()?;
        let etc = home.join("etc");
        fs::write(etc.join("smtpd.conf"), configuration(dir, address.port()))?;
        // It asks for the name of each client, and a name server far away must not be what is measured.
        fs::write(etc.join("resolv.conf"), "lookup file\n")?;
        let [passwd, group] = accounts()?;
        fs::write(etc.join("passwd"), passwd)?;
        fs::write(etc.join("group"), group)?;
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                SCRIPT,
                "sh",
            ])
            .args([&home, &self.root]);
        Process::told(command, address).map_err(|e| peers::with_log(&e, &home.join("log")))
    }
}

/// All mail to nobody, and from there by the name in the address.
fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        r#"smtp max-message-size "1G"
smtp limit max-mails 1000000000
smtp limit max-rcpt 100000
table users {{ "@bench.test" = nobody }}
listen on 127.0.0.1 port {port} hostname bench.test
action "deliver" maildir "{dir}/%{{dest.user}}" virtual <users>
match from any for domain "bench.test" action "deliver"
"#
    )
}

/// The system's passwd and group, with what they lack.
fn accounts() -> io::Result<[String; 2]> {
    let mut passwd = fs::read_to_string("/etc/passwd")?;
    let mut group = fs::read_to_string("/etc/group")?;
    for (name, number) in USERS {
        let has = |text: &str| {
            text.lines()
                .any(|line| line.split(':').next() == Some(name))
        };
        if !has(&passwd) {
            passwd += &format!("{name}:x:{number}:{number}::/var/empty:/usr/sbin/nologin\n");
        }
        if !has(&group) {
            group += &format!("{name}:x:{number}:\n");
        }
    }
    Ok([passwd, group])
}
