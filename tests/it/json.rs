//! Helpers to read the tests' own JSON. A value of an unexpected type fails the test.

use std::collections::HashMap;

pub use tinyjson::JsonValue as Json;

/// Members, texts, numbers and lists of a value.
pub trait Read {
    /// A member of a map; none where it is missing.
    fn member(&self, name: &str) -> Option<&Json>;
    fn names(&self) -> impl Iterator<Item = &str>;
    fn text(&self) -> &str;
    fn number(&self) -> usize;
    fn list(&self) -> &[Json];
}

fn map(json: &Json) -> &HashMap<String, Json> {
    json.get()
        .unwrap_or_else(|| panic!("not an object: {json:?}"))
}

impl Read for Json {
    fn member(&self, name: &str) -> Option<&Json> {
        map(self).get(name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        map(self).keys().map(String::as_str)
    }

    fn text(&self) -> &str {
        self.get::<String>()
            .unwrap_or_else(|| panic!("not a string: {self:?}"))
    }

    fn number(&self) -> usize {
        let number: &f64 = self
            .get()
            .unwrap_or_else(|| panic!("not a number: {self:?}"));
        format!("{number}").parse().unwrap()
    }

    fn list(&self) -> &[Json] {
        self.get::<Vec<Self>>()
            .unwrap_or_else(|| panic!("not a list: {self:?}"))
    }
}
