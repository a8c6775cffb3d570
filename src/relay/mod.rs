//! Mail onward: which next hop takes a recipient, when it is tried, and what the sender hears of it. Without `--relay`
//! nothing of this exists.

mod route;

pub use route::{Kind, Route, Routes, TlsMode};
