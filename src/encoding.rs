//! Small codings of the protocol, without I/O: base64 (RFC 4648 §4, strict), xtext, decimal numbers, and a
//! comparison whose time does not tell where two secrets differ.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes with padding.
pub fn base64_encode(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for place in 0..4 {
            let digit = ALPHABET.get((bits >> (18 - 6 * place) & 63) as usize);
            let digit = digit.filter(|_| place <= group.len()).unwrap_or(&b'=');
            text.push(char::from(*digit));
        }
    }
    text
}

/// Encodes in the URL-safe alphabet without padding (RFC 4648 §5), as tokens have it (RFC 7515 §2).
pub fn base64url_encode(octets: &[u8]) -> String {
    let text = base64_encode(octets);
    text.trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_")
}

/// Decodes the URL-safe alphabet; `None` for padding and all else that [`base64url_encode`] does not write.
pub fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    let standard = text.bytes().map(|octet| match octet {
        b'-' => b'+',
        b'_' => b'/',
        // No digit of either alphabet.
        b'+' | b'/' | b'=' => b' ',
        other => other,
    });
    let padding = (4 - text.len() % 4) % 4;
    base64_decode(&standard.chain(vec![b'='; padding]).collect::<Vec<u8>>())
}

/// Appends a number's decimal digits. Ids, file names and replies are made of them at every message, and formatting
/// by `write!` takes several times as long.
pub fn push_decimal(text: &mut String, number: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut first) = (number, digits.len());
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        first -= 1;
        if rest == 0 {
            break;
        }
    }
    let used = digits.get(first..).unwrap_or_default();
    text.push_str(std::str::from_utf8(used).unwrap_or_default());
}

/// Decodes; `None` for white space, wrong padding, other alphabets or stray bits.
pub fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&c| c == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut octets = Vec::with_capacity(text.len() / 4 * 3);
    let (mut value, mut bits) = (0_u32, 0);
    for digit in text.get(..text.len() - padding)? {
        let number = ALPHABET.iter().position(|known| known == digit)?;
        value = value << 6 | u32::try_from(number).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            octets.push(u8::try_from(value >> bits & 255).ok()?);
            value &= (1 << bits) - 1;
        }
    }
    (value == 0).then_some(octets)
}

/// Decodes xtext (RFC 3461 §4): `+` and two upper-case hex digits stand for an octet. `None`
/// for what the grammar does not allow, and for control characters, which could end a header
/// line wherever the value is written.
pub fn xtext_decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            b'=' => return None,
            plain => plain,
        });
    }
    let text = String::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Encodes printable ASCII as xtext (RFC 3461 §4).
pub fn xtext_encode(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'!'..=b'~' if !matches!(octet, b'+' | b'=') => coded.push(char::from(octet)),
            _ => coded.push_str(&format!("+{octet:02X}")),
        }
    }
    coded
}

const fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// Whether two secrets are the same; the time depends on their lengths alone.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let difference = a
        .iter()
        .zip(b)
        .fold(0, |all, (x, y)| std::hint::black_box(all | x ^ y));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut text = "n".to_owned();
            push_decimal(&mut text, number);
            assert_eq!(text, format!("n{number}"));
        }
    }

    /// RFC 4648 §10, and R165: what is not base64.
    #[test]
    fn base64() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64_encode(plain.as_bytes()), coded);
            assert_eq!(
                base64_decode(coded.as_bytes()).as_deref(),
                Some(plain.as_bytes())
            );
        }
        for bad in [
            "Zg", "Zg=", "Z===", "Zh==", "Zm 9v", "Zm9v\n", "-_-_", "====", "Zg==Zg==",
        ] {
            assert_eq!(base64_decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn base64url() {
        for octets in [
            &b""[..],
            b"f",
            b"fo",
            b"foo",
            &[0xfb, 0xff, 0xfe],
            &[255; 7],
        ] {
            let text = base64url_encode(octets);
            assert_eq!(base64url_decode(&text).as_deref(), Some(octets), "{text}");
        }
        for bad in ["Zg==", "Zh", "Z", "+/+/", "Zm 9", "Zm9v\n"] {
            assert_eq!(base64url_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn comparison() {
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"sama") && !constant_time_eq(b"same", b"sam"));
    }

    /// R155, A3.
    #[test]
    fn xtext() {
        assert_eq!(xtext_decode("e+3Dmc2@x").as_deref(), Some("e=mc2@x"));
        assert_eq!(xtext_decode("").as_deref(), Some(""));
        assert_eq!(xtext_encode("e=mc2+1 \u{e9}@x"), "e+3Dmc2+2B1+20+C3+A9@x");
        for wrong in ["+", "+3", "+3d", "a=b", "x+0A", "x+00", "+FF", "++2B"] {
            assert_eq!(xtext_decode(wrong), None, "{wrong}");
        }
    }
}
