//! Small codings that several modules share, without I/O: base64 (RFC 4648, strict), xtext (RFC 3461 §4), hexadecimal
//! and decimal numbers, text that is safe to show.

use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes in base64 with padding (RFC 4648 §4).
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

/// Decodes the URL-safe alphabet; `None` for padding and anything else that [`base64url_encode`] does not produce.
pub fn base64url_decode(text: &str) -> Option<Vec<u8>> {
    let standard = text.bytes().map(|octet| match octet {
        b'-' => b'+',
        b'_' => b'/',
        // Not a digit in either alphabet.
        b'+' | b'/' | b'=' => b' ',
        other => other,
    });
    let padding = (4 - text.len() % 4) % 4;
    base64_decode(&standard.chain(vec![b'='; padding]).collect::<Vec<u8>>())
}

/// Reads a number that consists of digits only: `parse` alone would accept `+5` as well.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Encodes octets as lower-case hexadecimal.
pub fn hex_encode(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Decodes hexadecimal digits of either case, two an octet.
pub fn hex_decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return None;
    };
    let octet = |[high, low]: &[u8; 2]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?);
    pairs.iter().map(octet).collect()
}

fn hex_digit(octet: u8) -> Option<u8> {
    let digit = char::from(octet).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Decodes base64; `None` for white space, wrong padding, other alphabets or stray bits.
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

/// Decodes xtext (RFC 3461 §4): `+` and two upper-case hex digits are an octet. `None` for anything else, for text that
/// is not UTF-8, and for control characters, which could end a header line where the value is written.
pub fn xtext_decode(text: &str) -> Option<String> {
    let text = String::from_utf8(xtext_octets(text)?).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Decodes xtext to octets of any value; `None` if it is malformed.
pub fn xtext_octets(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => {
                let [high, low] = [rest.next()?, rest.next()?];
                if high.is_ascii_lowercase() || low.is_ascii_lowercase() {
                    return None;
                }
                hex_digit(high)? << 4 | hex_digit(low)?
            }
            b'=' => return None,
            plain => plain,
        });
    }
    Some(octets)
}

/// Encodes text as xtext (RFC 3461 §4).
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

/// Text for a terminal: escapes every character that would change how it looks, except line ends.
pub fn visible(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for c in page.chars() {
        match c {
            '\n' => text.push(c),
            c if is_hidden(c) || c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text
}

/// Characters other than control characters that change how a line looks: line ends, zero-width and bidirectional
/// ones (UAX #9), tags.
pub const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for value in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(number(&value.to_string()), Some(value));
        }
        for wrong in ["", "+5", "-5", " 5", "5 ", "0x5", "18446744073709551616"] {
            assert_eq!(number::<u64>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(hex_encode(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(hex_decode(b"007fFF"), Some(vec![0, 0x7f, 0xff]));
        assert_eq!(hex_decode(b""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "00 ", "0\u{e9}"] {
            assert_eq!(hex_decode(wrong.as_bytes()), None, "{wrong}");
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
