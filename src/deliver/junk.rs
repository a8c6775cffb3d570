//! Recognises junk by header fields that a spam filter has added (`--junk`). `redirect` changes its folder.

use std::sync::Arc;

/// Maximum octets of a field name and of a value: no line is longer (RFC 5322 §2.1.1).
const LONGEST: usize = 998;

/// A header field that marks junk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JunkField {
    name: String,
    /// The prefix of its value.
    value: String,
}

impl JunkField {
    /// `FIELD:VALUE`, with blanks around the value or without. `None` if one of them is missing or invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once(':')?;
        let value = value.trim();
        let plain = |octet: u8| matches!(octet, 33..=126);
        let good = !name.is_empty() && !value.is_empty() && !value.contains(char::is_control);
        let good = good && name.bytes().all(plain) && name.len().max(value.len()) <= LONGEST;
        good.then(|| Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Looks for these fields in a header block as it arrives. It keeps the start of one value.
pub(super) struct Watch {
    fields: Arc<[JunkField]>,
    /// The name of the current field, if it may be one of them.
    name: String,
    /// Its value so far, unfolded and without leading blanks.
    value: Option<Vec<u8>>,
    found: bool,
}

impl Watch {
    /// `None` if there is nothing to look for.
    pub(super) fn new(fields: &Arc<[JunkField]>) -> Option<Self> {
        (!fields.is_empty()).then(|| Self {
            fields: Arc::clone(fields),
            name: String::new(),
            value: None,
            found: false,
        })
    }

    /// True if one of them was found.
    pub(super) const fn found(&self) -> bool {
        self.found
    }

    /// Begins a field; [`Self::octets`] then gets its value, with continuation lines.
    pub(super) fn field(&mut self, name: &[u8]) {
        let known = |field: &&JunkField| field.name.as_bytes().eq_ignore_ascii_case(name);
        let field = self.fields.iter().find(known).filter(|_| !self.found);
        self.value = field.map(|field| {
            self.name.clone_from(&field.name);
            Vec::new()
        });
    }

    /// Adds octets of the value; dropping line ends unfolds it (RFC 5322 §2.2.3).
    pub(super) fn octets(&mut self, octets: &[u8]) {
        let Some(value) = &mut self.value else { return };
        for &octet in octets
            .iter()
            .filter(|octet| !matches!(octet, b'\r' | b'\n'))
        {
            let leading = value.is_empty() && matches!(octet, b' ' | b'\t');
            if value.len() < LONGEST && !leading {
                value.push(octet);
            }
        }
        let same = |field: &JunkField| field.name.eq_ignore_ascii_case(&self.name);
        let begins = |field: &JunkField| value.starts_with(field.value.as_bytes());
        self.found = self.fields.iter().any(|field| same(field) && begins(field));
        if self.found {
            self.value = None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::deliver::header::Filter;
    use crate::deliver::target::Form;

    fn fields(all: &[&str]) -> Arc<[JunkField]> {
        all.iter()
            .map(|text| JunkField::parse(text).unwrap())
            .collect()
    }

    /// The same result at every split.
    fn is_junk(fields: &Arc<[JunkField]>, message: &str) -> bool {
        let mut verdicts = [1, 2, 3, 7, 100_000].map(|step| {
            let forms = [
                (Form::Text, message.to_owned()),
                (Form::Binary, message.replace('\n', "\r\n")),
            ];
            let junk = forms.map(|(form, message)| {
                let mut filter = Filter::new(form, None, Watch::new(fields));
                let mut out = Vec::new();
                for piece in message.as_bytes().chunks(step) {
                    filter.feed(piece, &mut out);
                }
                filter.finish(&mut out);
                filter.is_junk()
            });
            assert_eq!(junk.first(), junk.last(), "{message:?}");
            junk.first().copied().unwrap()
        });
        verdicts.sort_unstable();
        assert_eq!(verdicts.first(), verdicts.last(), "{message:?}");
        verdicts.first().copied().unwrap()
    }

    #[test]
    fn a_field_marks_spam() {
        let fields = fields(&[
            "X-Spam-Flag: YES",
            "x-spam:Yes",
            "X-Spam:very",
            "Subject:*** a  b",
        ]);
        for junk in [
            "X-Spam-Flag: YES\n\n",
            "x-SPAM-flag:YES\n",
            "A: b\nX-Spam-Flag \t: YES, and more\nB: c\n\nbody\n",
            "X-Spam-Flag:\n YES\n\n",
            "X-Spam-Flag:  \n\t \n  YES\n\n",
            "X-Spam-Flag: no\nX-Spam-Flag: YES\n\n",
            "X-Spam: No\nX-Spam: very much\n\n",
            "Subject: *** a\n  b c\n\n",
            "X-Spam: Yes",
        ] {
            assert!(is_junk(&fields, junk), "{junk:?}");
        }
        let long = format!("X-Spam: {}Yes\n\n", "x".repeat(5_000));
        for other in [
            "",
            "X-Spam-Flag: yes\n\n",
            "X-Spam-Flag: YE\n S\n\n",
            "X-Spam-Flag: YE\nS\n\n",
            "X-Spam-Flag: NO YES\n\n",
            "X-Spam-Flagged: YES\n\n",
            "X-Spam-Flag\n: YES\n\n",
            "A: b\n\nX-Spam-Flag: YES\n",
            "no field\nX-Spam-Flag: YES\n\n",
            "A: b\n X-Spam-Flag: YES\n\n",
            "X-Spam-Flag: \nA: YES\n\n",
            "X-Spam: YES\n\n",
            &long,
        ] {
            assert!(!is_junk(&fields, other), "{other:?}");
        }
    }

    #[test]
    fn fields_have_a_name_and_a_value() {
        assert_eq!(JunkField::parse("a: b "), JunkField::parse("a:b"));
        for bad in ["", "a", "a:", ":b", "a b:c", "a: ", "a:b\nc", "\u{e9}:a"] {
            assert_eq!(JunkField::parse(bad), None, "{bad:?}");
        }
        assert_eq!(JunkField::parse(&format!("a:{}", "x".repeat(999))), None);
    }
}
