//! The binary of mailslot: it reports its version until there is a server to start.
#![forbid(unsafe_code)]

fn main() {
    println!("mailslot {}", env!("CARGO_PKG_VERSION"));
}
