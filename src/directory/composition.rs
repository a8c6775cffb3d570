//! Letters and their marks as one character (Unicode Normalization Form C): macOS sends names decomposed, nearly
//! everybody else composed. Marks that are not in canonical order stay as they are.

use std::borrow::Cow;

/// Sorted triples of base, mark and composed character: UnicodeData's canonical compositions, 6 KiB.
const COMPOSITIONS: &str = include_str!("compositions.txt");
/// Hangul syllables are computed (Unicode §3.12): the first syllable, leading consonant, vowel and trailing consonant.
const HANGUL: [u32; 4] = [0xac00, 0x1100, 0x1161, 0x11a7];
const VOWELS: u32 = 21;
const TRAILING: u32 = 28;

/// Composes the letters and marks of a name.
pub(super) fn composed(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let together = out.chars().next_back().and_then(|last| pair(last, c));
        match together {
            Some(together) => {
                out.pop();
                out.push(together);
            }
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn pair(base: char, mark: char) -> Option<char> {
    if mark.is_ascii() {
        return None;
    }
    hangul(u32::from(base), u32::from(mark)).or_else(|| {
        let mut table = COMPOSITIONS.chars();
        while let (Some(first), Some(second), Some(both)) =
            (table.next(), table.next(), table.next())
        {
            if first > base {
                break;
            }
            if first == base && second == mark {
                return Some(both);
            }
        }
        None
    })
}

fn hangul(base: u32, mark: u32) -> Option<char> {
    let [syllable, leading, vowel, trailing] = HANGUL;
    let index = |c: u32, first: u32, count: u32| {
        let index = c.checked_sub(first)?;
        (index < count).then_some(index)
    };
    if let (Some(l), Some(v)) = (index(base, leading, 19), index(mark, vowel, VOWELS)) {
        return char::from_u32(syllable + (l * VOWELS + v) * TRAILING);
    }
    let syllables = 19 * VOWELS * TRAILING;
    let open = index(base, syllable, syllables).filter(|s| s.is_multiple_of(TRAILING))?;
    let t = index(mark, trailing, TRAILING).filter(|&t| t > 0)?;
    char::from_u32(syllable + open + t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_marks_become_one() {
        for (apart, together) in [
            ("jose\u{301}", "jos\u{e9}"),
            ("u\u{308}ber", "\u{fc}ber"),
            ("e\u{323}\u{302}", "\u{1ec7}"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("\u{3b1}\u{301}", "\u{3ac}"),
            ("x\u{301}", "x\u{301}"),
            ("plain", "plain"),
            ("\u{e9}", "\u{e9}"),
            ("\u{301}", "\u{301}"),
        ] {
            assert_eq!(composed(apart), together);
        }
    }
}
