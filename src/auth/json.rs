//! JSON (RFC 8259) for tokens and key sets: with bounded depth, and without duplicate members. The library that parses
//! it checks neither.

use tinyjson::JsonValue;

/// Maximum depth; claim sets of identity providers have three levels.
const MAX_DEPTH: usize = 16;

/// Parses a complete text.
///
/// # Errors
/// The reason, without the text.
pub(super) fn parse(text: &[u8]) -> Result<JsonValue, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8")?;
    let colons = scan(text)?;
    let value: JsonValue = text.parse().map_err(|_| "not JSON")?;
    // Of two members with the same name the library keeps one, so there are fewer members than colons.
    if members(&value) == colons {
        Ok(value)
    } else {
        Err("a member named twice")
    }
}

/// Counts the colons outside of strings, and refuses text that is nested too deeply for a recursive parser.
fn scan(text: &str) -> Result<usize, &'static str> {
    let (mut colons, mut depth, mut in_string, mut escaped) = (0, 0_usize, false, false);
    for octet in text.bytes() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b':' => colons += 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err("nested too deeply");
        }
    }
    Ok(colons)
}

/// Counts the members of all objects in a value.
fn members(value: &JsonValue) -> usize {
    match value {
        JsonValue::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        JsonValue::Array(values) => values.iter().map(members).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_texts() {
        for text in [
            r#"{}"#,
            r#"{"a":"b:c","d":{"a":[1,{"a":2}]}}"#,
            r#"{"\":":1,"x\\":"\\"}"#,
            r#" [ true , null ] "#,
        ] {
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    /// RFC 8725 §2.4 and duplicates, which RFC 7519 §4 allows to refuse.
    #[test]
    fn refused_texts() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "{",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"[{"a":1},{"b":1,"b":1}]"#,
            r#"{"a":1} x"#,
            r#"{"a":01}"#,
            r#"{'a':1}"#,
            deep.as_str(),
        ] {
            let shown: String = text.chars().take(40).collect();
            assert!(parse(text.as_bytes()).is_err(), "{shown}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }
}
