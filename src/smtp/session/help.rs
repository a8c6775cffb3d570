//! HELP (RFC 5321 §4.1.1.8), made from the command table.

use crate::smtp::command::{COMMANDS, Protocol, Verb};
use crate::smtp::reply::{self, Reply};

use super::state::Session;

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
