//! Passwords for next hops: `HOST[:PORT] USER PASSWORD` a line, in a file that only its owner may read.

use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::encoding::number;
use crate::failure::FileError;
use crate::net::dns::to_alabel;
use crate::net::url::host_and_port;
use crate::smtp::client::Credentials;

/// Logins by host.
#[derive(Clone, Debug, Default)]
pub struct Logins(Vec<(String, Option<u16>, Credentials)>);

impl Logins {
    /// Reads the file.
    ///
    /// # Errors
    /// Others may read it, or a line is not of the form.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let meta = std::fs::metadata(path).map_err(|e| FileError::new(path, None, e))?;
        if meta.mode() & 0o077 != 0 {
            let why = "holds passwords, but others than its owner may use it; chmod 600";
            return Err(FileError::new(path, None, why));
        }
        let text = Zeroizing::new(FileError::read(path)?);
        let mut all = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let row = parse(line);
            all.0.push(row.ok_or_else(|| {
                FileError::new(path, Some(number + 1), "expected HOST USER PASSWORD")
            })?);
        }
        Ok(all)
    }

    /// The login for a host: the first line with the host, the port if the line has one, and the user if one is
    /// required.
    pub fn find(&self, host: &str, port: u16, user: Option<&str>) -> Option<&Credentials> {
        let fits = |(known, at, login): &&(String, Option<u16>, Credentials)| {
            known.eq_ignore_ascii_case(host)
                && at.is_none_or(|at| at == port)
                && user.is_none_or(|user| user == login.user)
        };
        self.0.iter().find(fits).map(|(.., login)| login)
    }
}

/// The password is the rest of the line, so it may have blanks.
fn parse(line: &str) -> Option<(String, Option<u16>, Credentials)> {
    let (place, rest) = line.split_once([' ', '\t'])?;
    let (user, password) = rest.trim_start().split_once([' ', '\t'])?;
    let password = password.trim_start();
    let (host, port) = match place.parse::<Ipv6Addr>() {
        Ok(_) => (place, None),
        Err(_) => host_and_port(place)?,
    };
    let port = match port {
        Some(text) => Some(number(text)?),
        None => None,
    };
    let login = Credentials {
        user: user.to_owned(),
        password: Zeroizing::new(password.to_owned()),
    };
    // Hops have their names as A-labels.
    let host = to_alabel(host.strip_suffix('.').unwrap_or(host))?;
    (!host.is_empty() && !password.is_empty()).then_some((host, port, login))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn logins_by_host_port_and_user() {
        let dir = Scratch::new();
        let text = "# hops\nmx.example me pass word\nMX.example:465 you  p2\n\n[::1]:587 six p3\n::2 seven p4\n\
                    M\u{fc}.example. u p5\n";
        let path = dir.file("logins", text);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(
            Logins::load(&path)
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let all = Logins::load(&path).unwrap();
        let found = |host, port, user| {
            all.find(host, port, user)
                .map(|login| login.password.as_str())
        };
        assert_eq!(found("MX.Example", 25, None), Some("pass word"));
        assert_eq!(found("mx.example", 465, Some("you")), Some("p2"));
        assert_eq!(found("mx.example", 25, Some("you")), None);
        assert_eq!(found("::1", 587, None), Some("p3"));
        assert_eq!(found("::2", 25, None), Some("p4"));
        assert_eq!(found("xn--m-eha.example", 25, None), Some("p5"));
        for wrong in [
            "mx.example me",
            "mx.example",
            ":1 a b",
            "mx:x a b",
            "[::1]x a b",
        ] {
            std::fs::write(&path, format!("# x\n{wrong}\n")).unwrap();
            let said = Logins::load(&path).unwrap_err().to_string();
            assert!(said.contains(":2: expected"), "{said}");
            assert!(!said.contains(" me"), "{said}");
        }
    }
}
