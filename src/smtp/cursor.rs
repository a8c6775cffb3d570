//! A cursor over the text of a command: one small method for each thing a parser asks of it.
//! It never panics and never indexes; what is left over is for the caller to refuse.

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`.
    pub const fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The text between here and a later state of the same cursor; `None` where the other is not later.
    pub fn until(&self, later: &Self) -> Option<&'a str> {
        let length = self.rest.len().checked_sub(later.rest.len())?;
        self.rest.get(..length)
    }

    /// Takes `tag`, in any case, or nothing.
    pub fn tag(&mut self, tag: &str) -> bool {
        match self.rest.split_at_checked(tag.len()) {
            Some((head, tail)) if head.eq_ignore_ascii_case(tag) => {
                self.rest = tail;
                true
            }
            _ => false,
        }
    }

    /// Takes one character.
    pub fn character(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next();
        self.rest = chars.as_str();
        first
    }

    /// Takes characters as long as `keep` holds; maybe none.
    pub fn run(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let Some((head, tail)) = self.rest.split_at_checked(end) else {
            return "";
        };
        self.rest = tail;
        head
    }

    /// Takes spaces and tabs; whether there were any.
    pub fn spaces(&mut self) -> bool {
        !self.run(|c| c == ' ' || c == '\t').is_empty()
    }

    /// Whether a word ends here: a space, a tab or the end is next.
    pub fn at_word_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with([' ', '\t'])
    }

    /// Takes one word: all up to a space, tab or the end; maybe empty.
    pub fn word(&mut self) -> &'a str {
        self.run(|c| c != ' ' && c != '\t')
    }
}
