//! A cursor over the text of a command, with a small method for each thing that a parser needs. Callers refuse text
//! that is left over.

/// The text that is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`.
    pub const fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The text that has not been read.
    pub const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The text between here and a later state of the same cursor; `None` if the other is not later.
    pub fn until(&self, later: &Self) -> Option<&'a str> {
        let length = self.rest.len().checked_sub(later.rest.len())?;
        self.rest.get(..length)
    }

    /// Takes `tag` in any case, or leaves the cursor as it is.
    pub fn tag(&mut self, tag: &str) -> bool {
        match self.rest.split_at_checked(tag.len()) {
            Some((head, tail)) if head.eq_ignore_ascii_case(tag) => {
                self.rest = tail;
                true
            }
            _ => false,
        }
    }

    /// Takes a number of octets; `None` if there are fewer, or if the last one is within a character.
    pub fn octets(&mut self, count: usize) -> Option<&'a str> {
        let (head, tail) = self.rest.split_at_checked(count)?;
        self.rest = tail;
        Some(head)
    }

    /// Takes one character.
    pub fn character(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next();
        self.rest = chars.as_str();
        first
    }

    /// Takes characters while `keep` is true; possibly none.
    pub fn run(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        self.octets(end).unwrap_or_default()
    }

    /// Takes spaces and tabs; true if there were any.
    pub fn spaces(&mut self) -> bool {
        !self.run(|c| c == ' ' || c == '\t').is_empty()
    }

    /// True if a space, a tab or the end is next.
    pub fn at_word_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with([' ', '\t'])
    }

    /// Takes everything up to a space, a tab or the end; possibly nothing.
    pub fn word(&mut self) -> &'a str {
        self.run(|c| c != ' ' && c != '\t')
    }
}
