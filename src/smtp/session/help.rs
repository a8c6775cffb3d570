//! HELP (RFC 5321 §4.1.1.8), made from the command table.

use super::offers::Offer;
use super::state::Session;
use crate::smtp::command::COMMANDS;
use crate::smtp::reply::{self, Reply};

impl<R> Session<R> {
    /// HELP for what is offered here, now or after TLS or a login.
    pub(super) fn help(&self, topic: &str) -> Result<Reply, Reply> {
        let mut offered = COMMANDS
            .iter()
            .filter(|row| matches!(self.offers(row), Offer::Now | Offer::NotNow));
        if topic.is_empty() {
            let names: Vec<&str> = offered.map(|row| row.name).collect();
            return Ok(reply::HELP.with_text(format!("Commands:\n{}", names.join(" "))));
        }
        let row = offered.find(|row| row.name.eq_ignore_ascii_case(topic));
        row.map(|row| reply::HELP.with_text(row.syntax))
            .ok_or(reply::NO_SUCH_TOPIC)
    }
}
