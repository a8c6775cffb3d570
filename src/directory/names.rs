//! Names as keys and as parts of paths: domains with A-labels and U-labels unified, names that are safe as one
//! component of a path, and Maildir++ folders.

use std::path::Path;

use super::composition::composed;
use crate::encoding::base64_encode;
use crate::punycode;

/// Maximum octets of a name in a path (NAME_MAX).
const MAX_NAME: usize = 255;
/// Maximum octets of a path, less what delivery adds (PATH_MAX).
const MAX_PATH: usize = 4_000;

/// A domain in the form for comparisons: lower case, A-labels decoded (RFC 5890 §2.3.2.1).
pub fn domain_key(name: &str) -> String {
    let labels = name.split('.').map(|label| {
        let label = composed(label).to_lowercase();
        match label.strip_prefix("xn--").and_then(punycode::decode) {
            Some(decoded) => decoded.to_lowercase(),
            None => label,
        }
    });
    labels.collect::<Vec<_>>().join(".")
}

/// True if a name is safe as one component of a path (A4).
pub(super) fn safe(name: &str) -> bool {
    let dots = name.as_bytes().windows(2).any(|pair| pair == b"..");
    let strange = if name.is_ascii() {
        name.bytes().any(|o| o == b'/' || o.is_ascii_control())
    } else {
        name.contains(slash_or_control)
    };
    !(name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || dots || strange)
}

/// Also refuses characters that look like a slash.
fn slash_or_control(c: char) -> bool {
    matches!(c, '/' | '\u{2044}' | '\u{2215}' | '\u{ff0f}') || c.is_control()
}

/// True if a path is short enough for the system, in whole and in each part.
pub(super) fn fits(path: &Path) -> bool {
    let whole = path.as_os_str().len();
    whole <= MAX_NAME || whole <= MAX_PATH && path.iter().all(|part| part.len() <= MAX_NAME)
}

/// True if old mail systems would read a route in a local part (RFC 1123 §5.2.16).
pub(super) fn is_route(local: &str) -> bool {
    local.contains(['@', '%', '!'])
}

/// The directory of a Maildir++ folder, in modified UTF-7 if it is not ASCII; `None` for an impossible name.
pub(super) fn folder(detail: &str) -> Option<String> {
    let plain = !detail.is_empty()
        && !detail.starts_with('.')
        && !detail.ends_with('.')
        && !detail.contains("..")
        && !detail.contains(slash_or_control);
    let name = plain.then(|| format!(".{}", utf7(detail)))?;
    (name.len() <= MAX_NAME).then_some(name)
}

/// Modified UTF-7 (RFC 3501 §5.1.3): UTF-16 in base64 with `,` for `/`, between `&` and `-`.
fn utf7(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let plain = (' '..='~').contains(&first);
        let end = rest.find(|c| (' '..='~').contains(&c) != plain);
        let (run, tail) = rest
            .split_at_checked(end.unwrap_or(rest.len()))
            .unwrap_or((rest, ""));
        rest = tail;
        if plain {
            out.push_str(&run.replace('&', "&-"));
            continue;
        }
        let octets: Vec<u8> = run.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let coded = base64_encode(&octets).replace('/', ",");
        out.push_str(&format!("&{}-", coded.trim_end_matches('=')));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A17, RFC 3492 §7.1.
    #[test]
    fn domains() {
        for (one, other) in [
            ("Example.ORG", "example.org"),
            ("xn--stra6-oqa.de", "STRA\u{df}6.de"),
            ("xn--bcher-kva.example", "b\u{fc}cher.example"),
            // Decomposed, as macOS sends them.
            ("xn--bcher-kva.example", "BU\u{308}cher.example"),
            (
                "xn--ihqwcrb4cv8a8dqg056pqjye",
                "\u{4ed6}\u{4eec}\u{4e3a}\u{4ec0}\u{4e48}\u{4e0d}\u{8bf4}\u{4e2d}\u{6587}",
            ),
            ("xn--!", "XN--!"),
        ] {
            assert_eq!(domain_key(one), domain_key(other), "{one}");
        }
    }

    /// A4; RFC 3501 §5.1.3 has the second vector.
    #[test]
    fn folders() {
        assert_eq!(folder("a.b"), Some(".a.b".into()));
        assert_eq!(folder("\u{53f0}\u{5317}&x"), Some(".&U,BTFw-&-x".into()));
        for none in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.",
            "a/b",
            "../x",
            "a\u{ff0f}b",
            "a\nb",
        ] {
            assert_eq!(folder(none), None, "{none}");
        }
        assert_eq!(folder(&"x".repeat(255)), None);
    }
}
