//! `--oauth`: the key file and the required claims. The file is read here, at the start and at SIGHUP; `auth` verifies
//! tokens.

use std::path::{Path, PathBuf};

use crate::auth::jwt::{Expected, KeySet};
use crate::failure::FileError;

/// The config of `--oauth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthConfig {
    /// A JWK set (RFC 7517).
    pub file: PathBuf,
    /// The required claims.
    pub expected: Expected,
}

/// The keys as last read.
pub struct Tokens {
    keys: KeySet,
    expected: Expected,
}

impl OauthConfig {
    /// `FILE?issuer=…&audience=…&claim=…`; each at most once; the claim defaults to `email`.
    pub fn parse(text: &str) -> Option<Self> {
        let (file, query) = text.split_once('?').unwrap_or((text, ""));
        let mut expected = Expected {
            issuer: None,
            audience: None,
            claim: String::new(),
        };
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let value = Some(value).filter(|value| !value.is_empty())?.to_owned();
            let given = match name {
                "issuer" => expected.issuer.replace(value).is_some(),
                "audience" => expected.audience.replace(value).is_some(),
                "claim" => !std::mem::replace(&mut expected.claim, value).is_empty(),
                _ => return None,
            };
            if given {
                return None;
            }
        }
        if expected.claim.is_empty() {
            "email".clone_into(&mut expected.claim);
        }
        (!file.is_empty()).then(|| Self {
            file: PathBuf::from(file),
            expected,
        })
    }
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// The path and what is wrong.
    pub fn load(config: &OauthConfig) -> Result<Self, FileError> {
        let path: &Path = &config.file;
        let text = FileError::read(path)?;
        let keys = KeySet::parse(text.as_bytes());
        Ok(Self {
            keys: keys.map_err(|reason| FileError::new(path, None, reason))?,
            expected: config.expected.clone(),
        })
    }

    /// The account that a token names, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn account(&self, token: &str, now: u64) -> Result<String, &'static str> {
        self.keys.verify(token, &self.expected, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parse = |text: &str| {
            let config = OauthConfig::parse(text)?;
            let Expected {
                issuer,
                audience,
                claim,
            } = config.expected;
            let words = [issuer, audience].map(Option::unwrap_or_default);
            Some((config.file.display().to_string(), words, claim))
        };
        let whole = "/etc/jwks.json?issuer=https://id.test/a?b=c&audience=mail&claim=sub";
        let words = ["https://id.test/a?b=c", "mail"].map(str::to_owned);
        assert_eq!(
            parse(whole),
            Some(("/etc/jwks.json".into(), words, "sub".into()))
        );
        let bare = Some(("keys".into(), <[String; 2]>::default(), "email".into()));
        assert_eq!(parse("keys"), bare);
        assert_eq!(parse("keys?"), bare);
        for wrong in [
            "",
            "?issuer=x",
            "keys?issuer",
            "keys?issuer=",
            "keys?isuer=x",
            "keys?claim=a&claim=b",
            "keys?audience=a&audience=a",
            "keys?issuer=x&",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
