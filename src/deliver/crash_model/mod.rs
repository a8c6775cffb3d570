//! The promise, checked against every crash. Deliveries go to a disk that writes down each change (`recorder`), and a
//! checker lets the system crash at each point of that record (`checker`): after a 250 the whole message must be in
//! every mailbox, and `new/` must never hold a part of one.
//!
//! A crash may leave whatever POSIX allows, and not only what one file system happens to do. Each change that was not
//! synced may be there or not, independently of all others: each name in a directory, each write, and each link count,
//! so that a file that was synced before it had a name has none. The two halves of a rename are two such changes. A
//! sync covers the changes of its own file or directory that were made before it began. If it fails, those made before
//! its end may be lost, and no later sync brings them back.
//!
//! The number of disks stays small: a disk after a crash has one value in each place (a name in a directory, a write, a
//! link count), either that of the last durable change or that of any change after it, and the places are independent.
//! Both promises are about one path at a time. So some disk breaks a promise exactly if one place on a path may have a
//! wrong value, and the checker takes the set of values of each place instead of building 2^n disks; its time grows
//! with the square of a run's length. For short histories all disks are built (`disks`), and both methods must agree.
//!
//! Sessions that run at the same time may be switched at each call of the disk that changes something or opens a
//! directory, and wherever they would wait for a lock (`turns`). A sync has two such points, so that others can run
//! between its beginning and its end. Of two sessions every order with up to two switches is tried, of three two
//! hundred random ones: a failure names its seed, and CRASH_SEEDS in the environment asks for more.
//!
//! The queue of remote mail is on the same disk (`queue`): a message with a 250 must have an envelope with each
//! recipient that is not settled; a start on every such disk must find it, and remove incomplete messages.
//!
//! The checker is tested as well. It must find each sync that is left out, late, or retried after a failure, unnamed
//! files, and failures that only the sessions that waited for the sync learn of.
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
