//! A whole session over any input, in pieces of any size: nothing panics, replies are well formed, and no transaction
//! outlives its end.

use std::sync::Arc;

use mailslot::auth::{Account, Accounts, MECHANISMS, Stored};
use mailslot::smtp::address::{ForwardPath, ReversePath};
use mailslot::smtp::body::{BareNewline, Decoded, Dots};
use mailslot::smtp::line::{Lines, Split};
use mailslot::smtp::policy::{Policy, Service};
use mailslot::smtp::reply::{self, Reply};
use mailslot::smtp::session::{Backend, Channel, Mailboxes, Next, Session};

use super::first;

struct Anybody(Arc<Stored>);

impl Accounts for Anybody {
    fn account(&mut self, login: &str) -> Account {
        Account::Known {
            user: login.to_owned(),
            stored: Arc::clone(&self.0),
        }
    }
}

impl Backend for Anybody {
    type Recipient = ();
    fn recipient(
        &mut self,
        _: &ReversePath,
        to: &ForwardPath,
        _: Option<u64>,
        _: &mut Mailboxes,
    ) -> Result<(), Reply> {
        // A parsed address is written so that it parses to the same again.
        let spelled = format!("<{to}>");
        let again = ForwardPath::parse(&mut mailslot::smtp::cursor::Cursor::new(&spelled));
        assert_eq!(again.as_ref(), Some(to), "{spelled}");
        Ok(())
    }
    fn room(&mut self, _: u64) -> Result<(), Reply> {
        Ok(())
    }
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Reply> {
        Ok(vec![name.to_owned()])
    }
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Reply> {
        Ok(vec![name.to_owned(); 3])
    }
    fn may_send_as(&mut self, _: &str, _: &ReversePath) -> bool {
        true
    }
    fn nonce(&mut self) -> String {
        "nonce".to_owned()
    }
}

fn well_formed(reply: &Reply) {
    let mut out = Vec::new();
    reply.render(&mut out);
    assert!(out.ends_with(b"\r\n"));
    for line in out.split(|&o| o == b'\n').filter(|line| !line.is_empty()) {
        let text = std::str::from_utf8(line)
            .unwrap()
            .strip_suffix('\r')
            .unwrap();
        assert!(
            line.len() < 512 && !text.contains(char::is_control),
            "{text:?}"
        );
    }
}

/// One session over the input, in pieces of any size.
fn run(octets: &[u8], policy: &Arc<Policy>, step: usize) {
    let mut host = Anybody(Arc::new(Stored::parse("{PLAIN}secret").unwrap()));
    let mut session = Session::new(Arc::clone(policy), Channel::Clear);
    session.trust(step.is_multiple_of(2), step.is_multiple_of(3));
    let mut lines = Lines::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let limit = |start: &[u8]| session.line_limit(start);
        match lines.take(&octets[start..end], limit) {
            Split::Flood => return,
            Split::More { used } => {
                start += used;
                if end == octets.len() {
                    return;
                }
                end = octets.len().min(end + step);
            }
            Split::Line { line, used } => {
                let step = session.line(line, end > start + used, &mut host);
                start += used;
                step.reply.iter().for_each(well_formed);
                match step.next {
                    Next::Close | Next::StartTls | Next::Turn(_) => return,
                    Next::Xclient(attributes) => well_formed(&session.xclient_done(&attributes)),
                    Next::Command => {}
                    Next::Skip { size, .. } | Next::Chunk { size, last: false } => {
                        start = octets
                            .len()
                            .min(start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)));
                        end = end.max(start);
                    }
                    Next::Data | Next::Chunk { .. } => {
                        let mut dots = Dots::new(policy.bare_newline);
                        match dots.feed(&octets[start..], &mut Vec::new()) {
                            Decoded::More => return,
                            Decoded::End { used } => start += used,
                        }
                        end = end.max(start);
                        let replies = session.transaction().map_or(1, |t| t.recipients.len());
                        let _ = session.finish(vec![reply::LOCAL_ERROR; replies]);
                        assert!(session.transaction().is_none());
                    }
                }
            }
        }
    }
}

/// The first octet picks the service and the size of the pieces.
pub fn session(octets: &[u8]) {
    let (pick, input) = first(octets);
    let services = [Service::Smtp, Service::Submission, Service::Lmtp];
    let policy = Policy {
        hostname: "h".into(),
        service: services[pick % services.len()],
        starttls: true,
        mechanisms: MECHANISMS.to_vec(),
        require_tls: false,
        insecure_auth: true,
        auth_sender: true,
        vrfy: true,
        expn: true,
        max_size: 1_000,
        max_recipients: 3,
        max_errors: 1_000,
        bare_newline: BareNewline::Reject,
        bare_address: true,
        dsn: true,
        etrn: true,
        atrn: true,
    };
    run(input, &Arc::new(policy), 1 + pick / services.len());
}
