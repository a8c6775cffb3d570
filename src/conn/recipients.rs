//! Counts the recipients of a connection's transaction for the limit on those of all connections together.

use std::sync::atomic::Ordering;

use crate::state::RecipientPool;

/// Recipients of a transaction that are always allowed. Their memory is part of that of a connection.
const SHARE: usize = 4;

/// The recipients of a connection that the pool counts; they are returned when dropped.
pub(super) struct RecipientCount<'a> {
    pool: &'a RecipientPool,
    own: usize,
}

impl<'a> RecipientCount<'a> {
    pub(super) const fn new(pool: &'a RecipientPool) -> Self {
        Self { pool, own: 0 }
    }

    /// Maximum recipients of the transaction now. Connections that ask at the same time may exceed the pool by one
    /// each.
    pub(super) fn limit(&self) -> usize {
        let free = self
            .pool
            .max
            .saturating_sub(self.pool.taken.load(Ordering::Relaxed));
        free.saturating_add(self.own + SHARE)
    }

    /// Updates the number of recipients.
    pub(super) fn set(&mut self, recipients: usize) {
        let own = recipients.saturating_sub(SHARE);
        if own != self.own {
            // A difference below zero wraps around, and so does the sum.
            let more = own.wrapping_sub(self.own);
            self.pool.taken.fetch_add(more, Ordering::Relaxed);
            self.own = own;
        }
    }
}

impl Drop for RecipientCount<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_shared_and_a_share_is_not() {
        let pool = RecipientPool::new(10);
        let (mut one, mut other) = (RecipientCount::new(&pool), RecipientCount::new(&pool));
        one.set(SHARE + 9);
        assert_eq!((one.limit(), other.limit()), (SHARE + 10, SHARE + 1));
        other.set(SHARE + 1);
        assert_eq!(RecipientCount::new(&pool).limit(), SHARE);
        other.set(SHARE - 1);
        assert_eq!(other.limit(), SHARE + 1);
        drop(one);
        assert_eq!(other.limit(), SHARE + 10);
        let endless = RecipientPool::new(usize::MAX);
        assert_eq!(RecipientCount::new(&endless).limit(), usize::MAX);
    }
}
