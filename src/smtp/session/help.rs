//! What a client may ask about: the commands (HELP), and who somebody is (VRFY, EXPN).

use super::{Session, Step, say};
use crate::smtp::command::{COMMANDS, Protocol, Verb};
use crate::smtp::reply::{self, Refusal, Reply};

impl<R> Session<R> {
    /// HELP out of the command table, for what is offered here (RFC 5321 §4.1.1.8).
    pub(super) fn help(&self, topic: &str) -> Result<Reply, Reply> {
        let lmtp = self.is_lmtp();
        let mut offered = COMMANDS.iter().filter(|row| {
            let here = match row.protocol {
                Protocol::Any => true,
                Protocol::Smtp => !lmtp,
                Protocol::Lmtp => lmtp,
            };
            let usable = match row.verb {
                Verb::StartTls => self.policy.starttls,
                Verb::Auth => !self.policy.mechanisms.is_empty(),
                Verb::Expn => self.policy.expn,
                _ => true,
            };
            here && usable && !row.syntax.is_empty()
        });
        if topic.is_empty() {
            let names: Vec<&str> = offered.map(|row| row.name).collect();
            return Ok(reply::HELP.with_text(format!("Commands:\n{}", names.join(" "))));
        }
        let row = offered.find(|row| row.name.eq_ignore_ascii_case(topic));
        row.map(|row| reply::HELP.with_text(row.syntax))
            .ok_or(reply::NO_SUCH_TOPIC)
    }
}

/// VRFY and EXPN (RFC 5321 §3.5), with SMTPUTF8 for names and answers beyond ASCII
/// (RFC 6531 §3.7.4.2).
pub(super) fn names(
    argument: &str,
    look_up: impl FnOnce(&str) -> Result<Vec<String>, Refusal>,
) -> Result<Step, Reply> {
    let (name, utf8) = match argument.rsplit_once([' ', '\t']) {
        Some((name, word)) if word.eq_ignore_ascii_case("SMTPUTF8") => (name.trim_end(), true),
        _ => (argument, false),
    };
    if !utf8 && !name.is_ascii() {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    let lines = look_up(name).map_err(|refusal| refusal.reply)?.join("\n");
    match (utf8, lines.is_ascii()) {
        (false, false) => Err(reply::NEEDS_SMTPUTF8_REPLY),
        (true, _) => Ok(say(reply::LISTED.with_text(lines).in_utf8())),
        (false, true) => Ok(say(reply::LISTED.with_text(lines))),
    }
}
