//! Redirects junk to the folder `.Junk` of each mailbox that has a usable one. The file, which is in the `tmp/` of an
//! inbox by then, is moved or linked from there.

use std::ffi::OsStr;
use std::sync::Arc;

use super::disk;
use super::refusal::Trouble;
use super::spool::{Delivery, Spool};
use super::target::Target;

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
        delivery.inbox = Some(target);
        Ok(())
    }

    /// Goes back from the junk folder to the inbox after an error: RCPT did not look at the folder, and the message may
    /// be for others too.
    ///
    /// # Errors
    /// The error itself, if there is no way back.
    pub(super) fn retreat(&mut self, index: usize, trouble: Trouble) -> Result<(), Trouble> {
        let delivery = self.delivery(index)?;
        let Some(inbox) = delivery.inbox.take() else {
            return Err(trouble);
        };
        self.log(&trouble);
        if self.delivery(index)?.staged {
            let dirs = self.dirs(index)?;
            let name = self.deliveries.get(index).map(|d| d.name(&self.name));
            let name = OsStr::new(name.unwrap_or_default());
            let _ = self.context.disk.unlink(disk::fd(&dirs.tmp), name);
        }
        let delivery = self.delivery(index)?;
        let reserved = delivery.reserved;
        *delivery = Delivery::new(inbox);
        delivery.reserved = reserved;
        Ok(())
    }
}
