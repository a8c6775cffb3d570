//! What the system gives and takes away: users and groups, privileges, inherited sockets, the
//! service manager. Nothing here knows of mail.

pub mod ids;
pub mod inherited;
pub mod notify;
pub mod privileges;
