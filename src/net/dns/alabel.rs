//! Internationalized domains in the form of the DNS: `xn--` and Punycode (RFC 5891 §4.4).

use crate::punycode;

/// The domain in ASCII, lower case; `None` if a label would be too long for the DNS. Of IDNA's mappings only the one to
/// lower case is applied.
pub fn to_alabel(domain: &str) -> Option<String> {
    let labels = domain.split('.').map(|label| {
        let lower = label.to_lowercase();
        let ascii = if lower.is_ascii() {
            lower
        } else {
            format!("xn--{}", punycode::encode(&lower)?)
        };
        (ascii.len() <= 63).then_some(ascii)
    });
    labels.collect::<Option<Vec<_>>>().map(|all| all.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_in_ascii() {
        for (unicode, ascii) in [
            ("Example.org", Some("example.org")),
            ("B\u{fc}cher.example", Some("xn--bcher-kva.example")),
            ("m\u{fc}nchen.de", Some("xn--mnchen-3ya.de")),
            ("\u{fc}", Some("xn--tda")),
            (
                "\u{4f8b}\u{3048}.\u{30c6}\u{30b9}\u{30c8}",
                Some("xn--r8jz45g.xn--zckzah"),
            ),
            ("", Some("")),
        ] {
            assert_eq!(to_alabel(unicode).as_deref(), ascii, "{unicode}");
        }
        assert_eq!(to_alabel(&"\u{fc}".repeat(100)), None);
        assert_eq!(to_alabel(&"\u{10ffff}a".repeat(2_000)), None);
        assert_eq!(to_alabel(&"x".repeat(64)), None);
    }
}
