//! Another place for a message than the one it began in: spam goes to the folder `.Junk` of each mailbox that has one. Its
//! file is in the `tmp/` of an inbox by then, and is moved or linked from there.

use std::sync::Arc;

use super::refusal::Trouble;
use super::spool::Spool;
use super::target::Target;

/// The folder of spam.
const JUNK: &str = ".Junk";

impl Spool {
    /// The message is spam: it goes to that folder of each mailbox, where no other was named.
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
        // The Maildir that the message began in must still be the one where its folder is.
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
        Ok(())
    }
}
