//! VRFY and EXPN, if they are answered truthfully: the user with a name, and the members of a list.

use super::step::{Step, say};
use crate::smtp::reply::{self, Reply};

/// VRFY and EXPN (RFC 5321 §3.5), with SMTPUTF8 for names and answers that are not ASCII (RFC 6531 §3.7.4.2).
pub(super) fn look_up(
    argument: &str,
    find: impl FnOnce(&str) -> Result<Vec<String>, Reply>,
) -> Result<Step, Reply> {
    let (name, utf8) = match argument.rsplit_once([' ', '\t']) {
        Some((name, word)) if word.eq_ignore_ascii_case("SMTPUTF8") => (name.trim_end(), true),
        _ => (argument, false),
    };
    if !utf8 && !name.is_ascii() {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    let lines = find(name)?.join("\n");
    match (utf8, lines.is_ascii()) {
        (false, false) => Err(reply::NEEDS_SMTPUTF8_REPLY),
        (true, _) => Ok(say(reply::NAMES.with_text(lines).in_utf8())),
        (false, true) => Ok(say(reply::NAMES.with_text(lines))),
    }
}
