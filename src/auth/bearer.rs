//! OAUTHBEARER (RFC 7628) and XOAUTH2, its predecessor: the client presents a token from an identity provider. `jwt`
//! checks tokens.

use super::accounts::Accounts;
use super::machine::{Machine, Progress, login};

/// The error for every wrong token (RFC 7628 §3.2.2); the second member is for XOAUTH2 clients.
const WRONG: &[u8] = br#"{"status":"invalid_token","schemes":"bearer"}"#;
/// The separator in a response.
const SEPARATOR: char = '\u{1}';

/// The server's side of both.
pub(super) struct Bearer {
    /// OAUTHBEARER, with a GS2 header in front.
    standard: bool,
}

/// A client's response.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    /// The user that it names in addition to the token.
    user: Option<String>,
    token: String,
}

impl Bearer {
    pub(super) const fn new(standard: bool) -> Self {
        Self { standard }
    }

    fn parse(&self, response: &[u8]) -> Option<Response> {
        let text = std::str::from_utf8(response).ok()?;
        let (first, rest) = text.split_once(SEPARATOR)?;
        let user = match self.standard {
            true => gs2_user(first)?,
            false => Some(first.strip_prefix("user=")?.to_owned()),
        };
        // A response ends in a separator, so the last part is empty.
        let pairs = rest.strip_suffix(SEPARATOR)?.strip_suffix(SEPARATOR)?;
        let mut tokens = pairs
            .split(SEPARATOR)
            .filter_map(|pair| pair.strip_prefix("auth="));
        let (Some(auth), None) = (tokens.next(), tokens.next()) else {
            return None;
        };
        // A client without a token asks for the discovery data (RFC 7628 §4.3).
        let (scheme, token) = auth.split_once(' ').unwrap_or((auth, ""));
        (scheme.is_empty() || scheme.eq_ignore_ascii_case("bearer")).then(|| Response {
            user: user.filter(|user| !user.is_empty()),
            token: token.trim().to_owned(),
        })
    }
}

impl Machine for Bearer {
    fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        let Some(response) = response else {
            return Progress::Challenge(Vec::new());
        };
        let Some(Response { user, token }) = self.parse(response) else {
            return Progress::Malformed;
        };
        if let Some(user) = &user {
            accounts.tried(user.as_bytes());
        }
        let rejected = || Progress::Rejected(WRONG.to_vec());
        if user
            .as_ref()
            .is_some_and(|user| login(user.as_bytes()).is_none())
        {
            return rejected();
        }
        match accounts.token(&token, user.as_deref()) {
            Some(user) => Progress::Done { user },
            None => rejected(),
        }
    }
}

/// The authorization identity of a GS2 header (RFC 5801 §4), `Some(None)` without one; `None` if the header is
/// malformed or asks for channel binding.
fn gs2_user(header: &str) -> Option<Option<String>> {
    let mut parts = header.split(',');
    let (Some("n" | "y"), Some(identity), Some(""), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if identity.is_empty() {
        return Some(None);
    }
    let name = identity.strip_prefix("a=")?;
    let escapes = name.matches('=').count();
    let known = name.matches("=2C").count() + name.matches("=3D").count();
    let name = name.replace("=2C", ",").replace("=3D", "=");
    (escapes == known && !name.is_empty()).then_some(Some(name))
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Exchange;
    use super::super::mechanism::Mechanism;
    use super::super::testing::*;
    use super::*;

    fn rejected() -> Progress {
        Progress::Rejected(WRONG.to_vec())
    }

    fn ask(mechanism: Mechanism, response: &str) -> Progress {
        start(mechanism).step(Some(response.as_bytes()), &mut Book::new())
    }

    /// The forms of RFC 7628 §4.1 and of XOAUTH2.
    #[test]
    fn good_tokens() {
        for response in [
            "n,a=user,\u{1}host=server.example.com\u{1}port=143\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "y,,\u{1}auth=bearer  token-of-user\u{1}\u{1}",
        ] {
            assert_eq!(ask(Mechanism::OAuthBearer, response), done("user"));
        }
        for response in [
            "user=user\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "user=\u{1}auth=Bearer token-of-user\u{1}\u{1}",
        ] {
            assert_eq!(ask(Mechanism::XOAuth2, response), done("user"));
        }
        let mut exchange = start(Mechanism::XOAuth2);
        assert_eq!(exchange.step(None, &mut Book::new()), challenge(""));
        let response = b"user=tim\x01auth=Bearer token-of-tim\x01\x01";
        assert_eq!(exchange.step(Some(response), &mut Book::new()), done("tim"));
    }

    /// The error is the last challenge, and no response changes the outcome.
    #[test]
    fn wrong_tokens() {
        for response in [
            "n,a=user,\u{1}auth=Bearer token-of-tim\u{1}\u{1}",
            "n,a=us=2Cer,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,a=us\u{2}er,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,,\u{1}auth=Bearer nobody's\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=\u{1}\u{1}",
        ] {
            let mut exchange = Exchange::start(Mechanism::OAuthBearer, &context("x"));
            let mut book = Book::new();
            assert!(!exchange.is_over());
            let progress = exchange.step(Some(response.as_bytes()), &mut book);
            assert_eq!(progress, rejected(), "{response:?}");
            assert!(exchange.is_over());
            let again = b"n,,\x01auth=Bearer token-of-user\x01\x01";
            assert_eq!(exchange.step(Some(again), &mut book), Progress::Failed);
        }
    }

    #[test]
    fn malformed() {
        for response in [
            "",
            "n,,",
            "n,,\u{1}",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer token-of-user",
            "n,,\u{1}auth=Bearer token-of-user\u{1}",
            "n,,\u{1}auth=Bearer token-of-user\u{1}\u{1}\u{1}x",
            "n,,\u{1}auth=Basic dTpw\u{1}\u{1}",
            "n,,\u{1}auth=Bearer token-of-user\u{1}auth=Bearer token-of-tim\u{1}\u{1}",
            "p=tls-exporter,,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,user,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,a=,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,a=us=er,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "n,,,\u{1}auth=Bearer token-of-user\u{1}\u{1}",
            "user=user\u{1}auth=Bearer token-of-user\u{1}\u{1}",
        ] {
            let progress = ask(Mechanism::OAuthBearer, response);
            assert_eq!(progress, Progress::Malformed, "{response:?}");
        }
        let standard = "n,,\u{1}auth=Bearer token-of-user\u{1}\u{1}";
        assert_eq!(ask(Mechanism::XOAuth2, standard), Progress::Malformed);
    }
}
