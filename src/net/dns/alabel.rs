//! Internationalized domains in the form of the DNS: `xn--` and Punycode (RFC 5891 §4.4, RFC 3492).

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const FIRST_BIAS: u32 = 72;
const FIRST_CODE: u32 = 128;

/// The domain in ASCII, lower case; `None` if a label would be too long for the DNS. Of IDNA's mappings only the one to
/// lower case is applied.
pub fn to_alabel(domain: &str) -> Option<String> {
    let labels = domain.split('.').map(|label| {
        let lower = label.to_lowercase();
        let ascii = if lower.is_ascii() {
            lower
        } else {
            format!("xn--{}", punycode(&lower)?)
        };
        (ascii.len() <= 63).then_some(ascii)
    });
    labels.collect::<Option<Vec<_>>>().map(|all| all.join("."))
}

/// RFC 3492 §6.3; every sum is checked, although no valid label comes near the limit.
fn punycode(text: &str) -> Option<String> {
    let input: Vec<u32> = text.chars().map(u32::from).collect();
    let mut out: String = text.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).ok()?;
    let total = u32::try_from(input.len()).ok()?;
    if basic > 0 {
        out.push('-');
    }
    let (mut code, mut delta, mut bias, mut done) = (FIRST_CODE, 0_u32, FIRST_BIAS, basic);
    while done < total && out.len() < 64 {
        let next = input.iter().copied().filter(|&c| c >= code).min()?;
        delta = delta.checked_add((next - code).checked_mul(done + 1)?)?;
        code = next;
        for &c in &input {
            if c < code {
                delta = delta.checked_add(1)?;
            }
            if c == code {
                digits(delta, bias, &mut out)?;
                bias = adapt(delta, done + 1, done == basic);
                delta = 0;
                done += 1;
            }
        }
        delta = delta.checked_add(1)?;
        code = code.checked_add(1)?;
    }
    (done == total).then_some(out)
}

fn digits(delta: u32, bias: u32, out: &mut String) -> Option<()> {
    let mut rest = delta;
    let mut k = BASE;
    loop {
        let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            out.push(digit(rest)?);
            return Some(());
        }
        let span = BASE - threshold;
        out.push(digit(threshold + (rest - threshold) % span)?);
        rest = (rest - threshold) / span;
        k += BASE;
    }
}

/// `a` to `z`, then `0` to `9`.
fn digit(value: u32) -> Option<char> {
    let value = u8::try_from(value).ok()?;
    match value {
        0..=25 => Some(char::from(b'a' + value)),
        26..=35 => Some(char::from(b'0' + value - 26)),
        _ => None,
    }
}

fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
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
