//! The promise, checked against every crash. Deliveries go to a disk that writes down each change (`recorder`), and a
//! checker lets the system crash at each point of that record (`checker`): after a 250 the whole message must be in
//! every mailbox, and `new/` must never hold a part of one.
//!
//! A crash may leave whatever POSIX allows, and not only what one file system happens to do. Each change that was not
//! synced may be there or not, independently of all others: each name in a directory, each write, and each link count,
//! so that a file which was synced before it had a name has none. The two halves of a rename are two such changes. A
//! sync counts for the changes of its own file or directory that were made before it began. One that fails says that
//! those made before its end may be lost, and no later one brings them back.
//!
//! The number of disks stays small: a disk after a crash has one value in each place (a name in a directory, a write, a
//! link count), either that of the last durable change or that of any change after it, and the places are independent.
//! Both promises are about one path at a time. So some disk breaks a promise exactly where one place on a path may have
//! a wrong value, and the checker asks each place for the set of its values instead of building 2^n disks; its time
//! grows with the square of a run's length. On short histories all disks are built (`disks`), and both ways must agree.
//!
//! Sessions that run at the same time give their turn away at each call of the disk that changes something or opens a
//! directory, and wherever they would wait for a lock (`turns`). A sync is two such points, so that others get between
//! its beginning and its end. Of two sessions every order with up to two switches is tried, of three two hundred random
//! ones: a failure names its seed, and CRASH_SEEDS in the environment asks for more.
//!
//! The queue for mail to elsewhere is on the same disk (`queue`): a message with a 250 is there with an envelope that
//! has each recipient who is not settled, and a start over every such disk finds it, and removes what is half-made.
//!
//! The checker is checked as well. It must find each sync that is left out, late, or tried again after a failure,
//! unnamed files, and failures that are told only to those who waited for the sync.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod checker;
mod delivery;
mod disks;
mod history;
mod queue;
mod recorder;
mod scenario;
mod sessions;
mod turns;
