//! Users and groups, privileges, inherited sockets and the service manager. Nothing here knows about mail.

pub mod arena;
pub mod ids;
pub mod inherited;
pub mod notify;
pub mod privileges;
