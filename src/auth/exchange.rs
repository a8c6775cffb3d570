//! One run of a mechanism, from the AUTH command to its outcome.

use std::fmt;

use super::accounts::Accounts;
use super::bearer::Bearer;
use super::cram::Cram;
use super::machine::{ExchangeContext, Machine, Progress};
use super::mechanism::Mechanism;
use super::plain::{LoginExchange, Plain};
use super::scram::Scram;

/// One run of a mechanism, from the AUTH command to its outcome.
pub struct Exchange {
    mechanism: Mechanism,
    /// `None` after the outcome.
    machine: Option<Box<dyn Machine>>,
}

impl Exchange {
    /// Begins an exchange without any state of an earlier one. Without a nonce it is over: another one's responses could
    /// be repeated.
    pub fn start(mechanism: Mechanism, context: &ExchangeContext<'_>) -> Self {
        let machine = || Self::machine(mechanism, context);
        Self {
            mechanism,
            machine: (!context.nonce.is_empty()).then(machine),
        }
    }

    /// The machine of a mechanism.
    fn machine(mechanism: Mechanism, context: &ExchangeContext<'_>) -> Box<dyn Machine> {
        match mechanism {
            Mechanism::ScramSha256Plus => Box::new(Scram::plus(context)),
            Mechanism::ScramSha256 => Box::new(Scram::new(context)),
            Mechanism::CramMd5 => Box::new(Cram::new(context)),
            Mechanism::Plain => Box::new(Plain),
            Mechanism::Login => Box::new(LoginExchange::new()),
            Mechanism::OAuthBearer => Box::new(Bearer::new(true)),
            Mechanism::XOAuth2 => Box::new(Bearer::new(false)),
        }
    }

    /// Handles the client's next response, decoded. At the first step `None` means no initial response, and an empty
    /// `Some` means `=`. After the outcome every step fails.
    pub fn step(&mut self, response: Option<&[u8]>, accounts: &mut dyn Accounts) -> Progress {
        let Some(machine) = &mut self.machine else {
            return Progress::Failed;
        };
        let progress = machine.step(response, accounts);
        if !matches!(progress, Progress::Challenge(_)) {
            self.machine = None;
        }
        progress
    }

    /// True after the outcome.
    pub const fn is_over(&self) -> bool {
        self.machine.is_none()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.mechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn nothing_begins_without_random_numbers() {
        for &mechanism in super::super::mechanism::MECHANISMS {
            assert!(Exchange::start(mechanism, &context("")).is_over());
            assert!(!Exchange::start(mechanism, &context("x")).is_over());
        }
    }

    /// A9: a finished exchange cannot be used again.
    #[test]
    fn an_outcome_is_final() {
        let mut exchange = start(Mechanism::Plain);
        assert_eq!(
            exchange.step(Some(b"\0user\0wrong"), &mut Book::new()),
            Progress::Failed
        );
        assert_eq!(
            exchange.step(Some(b"\0user\0pencil"), &mut Book::new()),
            Progress::Failed
        );
    }
}
