//! XCLIENT on the session's side: when it may be used, and what is forgotten after it.

use super::state::{Phase, Session};
use super::step::{Next, Step};
use crate::smtp::reply::{self, Reply};
use crate::smtp::xclient::Attributes;

impl<R> Session<R> {
    pub(super) fn xclient(&self, argument: &str) -> Result<Step, Reply> {
        if self.transaction().is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        let attributes = Attributes::parse(argument).ok_or(reply::BAD_ATTRIBUTES)?;
        Ok(Step {
            reply: None,
            next: Next::Xclient(Box::new(attributes)),
        })
    }

    /// Continues as the real client: forgets the dialogue so far, takes greeting and login from XCLIENT, and replies
    /// with a new greeting.
    pub fn xclient_done(&mut self, attributes: &Attributes) -> Reply {
        self.forget();
        self.user.clone_from(&attributes.login);
        if let Some(helo) = &attributes.helo {
            self.helo = Some(helo.clone());
            self.extended = attributes.extended;
            self.phase = Phase::Greeted;
        }
        self.greeting()
    }
}
