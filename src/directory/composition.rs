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
    hangul(u32::from(base), u32::from(mark)).or_else(|| {
        if !may_be_mark(mark) {
            return None;
        }
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

/// True for the marks of the table and few other characters, so that most letters need no search.
const fn may_be_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{345}' | '\u{653}'..='\u{655}' | '\u{93c}'..='\u{1b35}' | '\u{3099}' | '\u{309a}' | '\u{110ba}'..='\u{11930}')
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
    fn every_mark_is_searched_for() {
        let table: Vec<char> = COMPOSITIONS.chars().collect();
        let (triples, []) = table.as_chunks::<3>() else {
            unreachable!("not triples");
        };
        assert!(triples.iter().all(|&[_, mark, _]| may_be_mark(mark)));
        assert!(
            !"a\u{e9}\u{416}\u{4e2d}\u{ac00}\u{1f600}"
                .chars()
                .any(may_be_mark)
        );
    }

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
