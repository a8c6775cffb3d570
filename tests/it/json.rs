//! A strict reader of JSON for the tests' own data. It refuses what RFC 8259 does not allow, a
//! name given twice, and what the data has no use for: fractions, signs, surrogates.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Json {
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        reader.space();
        match reader.rest() {
            "" => Ok(value),
            _ => Err(reader.wrong("something behind the value")),
        }
    }

    /// A member of a map; none where it is missing.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else {
            panic!("no map: {self:?}");
        };
        members.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        let Self::Map(members) = self else {
            panic!("no map: {self:?}");
        };
        members.iter().map(|(name, _)| name.as_str())
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => panic!("no text: {self:?}"),
        }
    }

    pub fn number(&self) -> usize {
        match self {
            Self::Number(number) => usize::try_from(*number).unwrap(),
            _ => panic!("no number: {self:?}"),
        }
    }

    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => panic!("no list: {self:?}"),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: &str) -> String {
        let line = self.text[..self.at].matches('\n').count() + 1;
        let near: String = self.rest().chars().take(20).collect();
        format!("line {line}: {what} at '{near}'")
    }

    fn space(&mut self) {
        let rest = self.rest().trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn value(&mut self) -> Result<Json, String> {
        self.space();
        for (word, value) in [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
        ] {
            if self.eat(word) {
                return Ok(value);
            }
        }
        match self.rest().chars().next() {
            Some('"') => self.string().map(Json::Text),
            Some('0'..='9') => self.number(),
            Some('[') => {
                let mut values = Vec::new();
                self.items('[', ']', |r| {
                    values.push(r.value()?);
                    Ok(())
                })?;
                Ok(Json::List(values))
            }
            Some('{') => {
                let mut members: Vec<(String, Json)> = Vec::new();
                self.items('{', '}', |r| {
                    r.space();
                    let name = r.string()?;
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(r.wrong("a name for the second time"));
                    }
                    r.space();
                    if !r.eat(":") {
                        return Err(r.wrong("no colon"));
                    }
                    members.push((name, r.value()?));
                    Ok(())
                })?;
                Ok(Json::Map(members))
            }
            _ => Err(self.wrong("no value")),
        }
    }

    /// What stands between brackets, commas between the items and none behind the last.
    fn items(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.at += open.len_utf8();
        self.space();
        if self.rest().starts_with(close) {
            self.at += close.len_utf8();
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.next() {
                Some(',') => {}
                Some(c) if c == close => return Ok(()),
                _ => return Err(self.wrong("neither comma nor end")),
            }
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let rest = self.rest();
        let digits =
            &rest[..rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len()];
        let behind = rest[digits.len()..].chars().next();
        if (digits.len() > 1 && digits.starts_with('0')) || matches!(behind, Some('.' | 'e' | 'E'))
        {
            return Err(self.wrong("not a plain number"));
        }
        self.at += digits.len();
        let number = digits
            .parse()
            .map_err(|_| self.wrong("a number too large"))?;
        Ok(Json::Number(number))
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.eat("\"") {
            return Err(self.wrong("no string"));
        }
        let mut out = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.escape()?),
                Some(c) if c >= ' ' => out.push(c),
                _ => return Err(self.wrong("a string without end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        match self.next() {
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let digits = self.rest().get(..4).unwrap_or_default();
                let plain = digits.len() == 4 && digits.bytes().all(|d| d.is_ascii_hexdigit());
                let number = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
                let c = number.and_then(char::from_u32);
                self.at += if c.is_some() { 4 } else { 0 };
                c.ok_or_else(|| self.wrong("no character"))
            }
            _ => Err(self.wrong("an unknown escape")),
        }
    }
}

#[test]
fn json_is_read_strictly() {
    let text = " {\"a\": [null, true, 0, 20], \"b\": \"x\\u00ff\\r\\n\\\"\u{e9}\", \"c\": {}} ";
    let list = vec![
        Json::Null,
        Json::Bool(true),
        Json::Number(0),
        Json::Number(20),
    ];
    assert_eq!(
        Json::read(text),
        Ok(Json::Map(vec![
            ("a".into(), Json::List(list)),
            ("b".into(), Json::Text("x\u{ff}\r\n\"\u{e9}".into())),
            ("c".into(), Json::Map(vec![])),
        ]))
    );
    for wrong in [
        "",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "01",
        "1.5",
        "-1",
        "'a'",
        "\"a",
        "\"\n\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\u00g0\"",
        "{\"a\":1,\"a\":2}",
        "{a:1}",
        "[1]]",
        "nul",
        "NaN",
        "[",
        "18446744073709551616",
    ] {
        assert!(Json::read(wrong).is_err(), "{wrong}");
    }
}
