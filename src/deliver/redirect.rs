//! Redirects junk to the folder `.Junk` of each mailbox that has a usable one. The file, which is in the `tmp/` of an inbox by
//! then, is moved or linked from there.

use std::sync::Arc;

use super::refusal::Trouble;
use super::spool::Spool;
use super::target::Target;
use crate::smtp::reply;

/// The junk folder.
const JUNK: &str = ".Junk";

impl Spool {
    /// Redirects the message to the junk folder of each mailbox, unless a folder was named.
    pub(super) fn send_to_junk(&mut self) {
        for index in 0..self.deliveries.len() {
            if let Err(trouble) = self.redirect(index) {
                let refusal = self.log(&trouble);
                if let Some(delivery) = self.deliveries.get_mut(index) {
                    delivery.refusal = Some(refusal);
                }
            }
        }
    }

    fn redirect(&mut self, index: usize) -> Result<(), Trouble> {
        let context = Arc::clone(&self.context);
        let delivery = self.delivery(index)?;
        let target = Arc::clone(&delivery.target);
        if target.folder.is_some() || !target.is_mailbox() || delivery.refusal.is_some() {
            return Ok(());
        }
        delivery.identity = None;
        // The folder must be in the Maildir that the message was written to.
        if let Some(dirs) = delivery.dirs.take()
            && !dirs.in_place(context.disk.as_ref())
        {
            context.dirs.forget(&target);
            return Err(Trouble::away(&dirs.path));
        }
        delivery.target = Arc::new(Target {
            folder: Some(JUNK.to_owned()),
            ..(*target).clone()
        });
        // RCPT did not look at it, and the message may be for others too.
        if let Err(trouble) = self.dirs(index)
            && trouble.refusal() == reply::MAILBOX_UNUSABLE
        {
            self.log(&trouble);
            self.delivery(index)?.target = target;
        }
        Ok(())
    }
}
