//! The extra fields of a users entry for mailbox and quota: `userdb_mail`, `userdb_mail_path`, `userdb_quota_rule` and
//! `userdb_quota_storage_size`, as Dovecot 2.3 and 2.4 read them.

use std::path::PathBuf;

use super::users::Entry;
use crate::deliver::Quota;

/// The units of a size.
const UNITS: [(char, u64); 5] = [
    ('B', 1),
    ('K', 1 << 10),
    ('M', 1 << 20),
    ('G', 1 << 30),
    ('T', 1 << 40),
];

impl<'a> Entry<'a> {
    fn extra(&self, name: &str) -> Option<&'a str> {
        let mut words = self.extra.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The Maildir of the entry, with variables expanded.
    pub(super) fn mail(&self, domain: &str) -> Result<Option<PathBuf>, String> {
        if let Some(driver) = self.extra("userdb_mail_driver").filter(|d| *d != "maildir") {
            return Err(format!(
                "userdb_mail_driver={driver}: only maildir can be delivered to"
            ));
        }
        if let Some(path) = self.extra("userdb_mail_path") {
            return self.fill("userdb_mail_path", path, domain).map(Some);
        }
        let Some(location) = self.extra("userdb_mail") else {
            return Ok(None);
        };
        let path = location.strip_prefix("maildir:").ok_or_else(|| {
            format!("userdb_mail={location}: only maildir:PATH can be delivered to")
        })?;
        // The rest is for the IMAP server.
        let path = path.split(':').next().unwrap_or("");
        self.fill("userdb_mail", path, domain).map(Some)
    }

    /// An absolute path, with `~`, `%h`, `%u`, `%n`, `%d` and their long forms expanded.
    fn fill(&self, field: &str, path: &str, domain: &str) -> Result<PathBuf, String> {
        let local = self.local.to_ascii_lowercase();
        let user = self.user.to_ascii_lowercase();
        let spelled = path;
        let path = match path.strip_prefix('~') {
            Some(rest) => format!("%h{rest}"),
            None => path.to_owned(),
        };
        if ["%h", "%{home}"].iter().any(|home| path.contains(home)) && self.home.is_empty() {
            return Err(format!(
                "{field}={spelled}: the entry has no home directory"
            ));
        }
        let mut filled = path;
        for (variable, value) in [
            ("%h", self.home),
            ("%{home}", self.home),
            ("%n", &local),
            ("%{user|username}", &local),
            ("%{username}", &local),
            ("%u", &user),
            ("%{user}", &user),
            ("%d", domain),
            ("%{user|domain}", domain),
            ("%{domain}", domain),
        ] {
            filled = filled.replace(variable, value);
        }
        let unfit = !filled.starts_with('/')
            || filled.contains(['%', '\0'])
            || filled.split('/').any(|part| part == "..");
        match unfit {
            true => Err(format!("{field}={spelled}: not an absolute path")),
            false => Ok(PathBuf::from(filled)),
        }
    }

    /// The quota of the entry. A bare number is KiB in `userdb_quota_rule`, octets in `userdb_quota_storage_size`.
    pub(super) fn quota(&self) -> Result<Option<Quota>, String> {
        let size = self.extra("userdb_quota_storage_size");
        let count = self.extra("userdb_quota_message_count");
        if size.is_some() || count.is_some() {
            let wrong = |name: &str, text: &str| format!("{name}={text}: not a size such as 1G");
            let parse = |name, text| octets(text, 1).ok_or_else(|| wrong(name, text));
            let bytes = size.map(|text| parse("userdb_quota_storage_size", text));
            let messages = count.map(|text| parse("userdb_quota_message_count", text));
            return Ok(Some(Quota {
                bytes: bytes.transpose()?,
                messages: messages.transpose()?,
            }));
        }
        let Some(rule) = self.extra("userdb_quota_rule") else {
            return Ok(None);
        };
        let wrong = || format!("userdb_quota_rule={rule}: use *:storage=1G, for example");
        let (folder, limits) = rule.split_once(':').ok_or_else(wrong)?;
        if !matches!(folder, "*" | "?") {
            // A rule for one folder is for the IMAP server.
            return Ok(None);
        }
        let mut quota = Quota {
            bytes: None,
            messages: None,
        };
        for limit in limits.split(':') {
            match limit.split_once('=').ok_or_else(wrong)? {
                ("storage", size) => quota.bytes = Some(octets(size, 1024).ok_or_else(wrong)?),
                ("bytes", size) => quota.bytes = Some(octets(size, 1).ok_or_else(wrong)?),
                ("messages", count) => quota.messages = Some(octets(count, 1).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        Ok(Some(quota))
    }
}

/// A number with B, K, M, G or T after it, or `KB` and `KiB` in full; without one it is in `unit`.
fn octets(text: &str, unit: u64) -> Option<u64> {
    let upper = text.to_ascii_uppercase();
    if upper == "UNLIMITED" {
        return Some(0);
    }
    let (digits, factor) = match upper.find(|c: char| !c.is_ascii_digit()) {
        None => (upper.as_str(), unit),
        Some(at) => {
            let (digits, suffix) = upper.split_at_checked(at)?;
            let fits = |letter: char| {
                let rest = suffix.strip_prefix(letter);
                rest.is_some_and(|rest| matches!(rest, "" | "B" | "IB") && suffix != "BB")
            };
            let (_, factor) = UNITS.into_iter().find(|(letter, _)| fits(*letter))?;
            (digits, factor)
        }
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn entry(line: &str) -> Result<(Option<PathBuf>, Option<Quota>), String> {
        let entry = Entry::parse(line)?;
        entry.stored()?;
        entry.owner()?;
        Ok((entry.mail("example.org")?, entry.quota()?))
    }

    #[test]
    fn fields() {
        let line = "Joe@Example.org:{PLAIN}x:1:1:Joe Doe,room 1:/home/joe::a=b \
            userdb_mail=maildir:~/Maildir:LAYOUT=fs userdb_quota_rule=*:storage=2:messages=5";
        let joe = Entry::parse(line).unwrap();
        assert_eq!(
            (joe.key().as_str(), joe.name),
            ("joe@example.org", "Joe Doe")
        );
        let quota = Quota {
            bytes: Some(2_048),
            messages: Some(5),
        };
        assert_eq!(
            entry(line),
            Ok((Some("/home/joe/Maildir".into()), Some(quota)))
        );
        assert_eq!(entry("joe"), Ok((None, None)));
        let bytes = |rule: &str| entry(&format!("j:::::::userdb_quota_rule={rule}")).map(|e| e.1);
        assert_eq!(bytes("*:bytes=3M").unwrap().unwrap().bytes, Some(3 << 20));
        assert_eq!(bytes("Trash:storage=5"), Ok(None));
        assert!(bytes("storage=5M").is_err(), "without a folder");
        for (size, octets) in [
            ("1", 1),
            ("2k", 2_048),
            ("1GB", 1 << 30),
            ("1MiB", 1 << 20),
            // 0 means unlimited.
            ("unlimited", 0),
        ] {
            let line = format!("j:::::::userdb_quota_storage_size={size}");
            assert_eq!(entry(&line).unwrap().1.unwrap().bytes, Some(octets));
        }
        let path = |line: &str| entry(line).unwrap().0.unwrap();
        assert_eq!(
            path("joe:::::/h::userdb_mail_path=~/mail"),
            PathBuf::from("/h/mail")
        );
        assert_eq!(
            path("Joe@a.org:::::/h::userdb_mail_path=%{home}/%{user|username}/%{user|domain}"),
            PathBuf::from("/h/joe/example.org")
        );
    }

    #[test]
    fn faults() {
        for wrong in [
            ":x",
            "../x",
            ".x",
            "a/b",
            "a@",
            "joe:secret",
            "joe:{NONSENSE}x",
            "joe:{PLAIN}x::::::userdb_mail=mbox:~/mail",
            "joe:{PLAIN}x::::::userdb_mail=maildir:relative",
            "joe:{PLAIN}x::::::userdb_mail=maildir:/a/../b",
            "joe:{PLAIN}x::::::userdb_quota_rule=*:storage=5%",
            "joe:{PLAIN}x::::::userdb_quota_rule=*:storage=+5",
            "joe:::::::userdb_quota_rule=*:storage=5BB",
            "joe:::::::userdb_quota_storage_size=ten",
            "joe:::::::userdb_quota_storage_size=99999999999T",
            "joe:::::::userdb_mail_path=Maildir",
            "joe:::::::userdb_mail_path=~/Maildir",
            "joe:::::::userdb_mail=maildir:~/Maildir",
            "joe:::::::userdb_mail=maildir:%h/Maildir",
            "joe:::::/h::userdb_mail_path=~/../x",
            "joe:::::/h::userdb_mail_driver=mbox userdb_mail_path=/x",
            "joe::root:0",
            "joe::0",
            "joe:::0",
            "joe::4294967295:0",
            "joe::-1:0",
        ] {
            assert!(entry(wrong).is_err(), "{wrong}");
        }
    }
}
