//! Delivers a report to the sender of a message: into its Maildir or, with a relay, into the queue. Reports are sent
//! from `<>`, so a report that fails is logged and dropped.

use std::sync::{Arc, Weak};

use crate::clock;
use crate::deliver::{Form, Group, Target, Trace, queue_refusal};
use crate::directory::ResolveContext;
use crate::queue::{Envelope, QueuedRecipient};
use crate::relay::{Relay, Reporter};
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::Reply;
use crate::state::ServerState;

/// Delivers the reports of a relay.
pub fn reporter(state: &Arc<ServerState>, relay: &Arc<Relay>, hostname: &str) -> Reporter {
    let (state, hostname) = (Arc::clone(state), hostname.to_owned());
    // The relay owns this, so it must not own the relay.
    let relay: Weak<Relay> = Arc::downgrade(relay);
    Box::new(move |to, content, tls| match relay.upgrade() {
        Some(relay) => deliver(&state, Some(&relay), &hostname, to, (content, tls)),
        None => Err("the server is stopping".to_owned()),
    })
}

/// Delivers a report, with REQUIRETLS if its message had that (RFC 8689 §5). Without a recipient it is logged and
/// dropped.
///
/// # Errors
/// Why it cannot be delivered now.
pub(super) fn deliver(
    state: &ServerState,
    relay: Option<&Relay>,
    hostname: &str,
    to: &str,
    report: (&[u8], bool),
) -> Result<(), String> {
    let Some(path) = ForwardPath::from_text(to) else {
        return dropped(to, "not an address");
    };
    let onward = |address: &str| relay.and_then(|relay| relay.target(address));
    let context = ResolveContext {
        onward: relay.is_some().then_some(&onward),
        may_relay: true,
        takes: &|target| state.store.quota_check(target, 0).is_ok(),
        is_open: &|target| state.store.is_open(target),
    };
    let snapshot = state.snapshot();
    // As at RCPT: nothing is created while the mail root is not mounted.
    let usable = |target: &Arc<Target>| match relay.is_some_and(|relay| relay.is_queue(target)) {
        true => Ok(()),
        false => snapshot.directory.check_usable(target),
    };
    let targets = snapshot.directory.resolve(&path, context);
    let targets = targets.and_then(|group| group.iter().try_for_each(usable).map(|()| group));
    let targets = match targets {
        Ok(targets) => targets,
        Err(refusal) if refusal.code() >= 500 => return dropped(to, refusal.text()),
        Err(refusal) => return Err(refusal.text().to_owned()),
    };
    let trace = Trace {
        reverse_path: "",
        helo: hostname,
        peer: "[127.0.0.1]",
        hostname,
        protocol: "local",
        recipient: None,
        user: None,
        submission: false,
    };
    match commit(state, relay, &trace, targets, report) {
        Err(refusal) if refusal.code() >= 500 => dropped(to, refusal.text()),
        done => done.map_err(|refusal| refusal.text().to_owned()),
    }
}

fn commit(
    state: &ServerState,
    relay: Option<&Relay>,
    trace: &Trace<'_>,
    targets: Group,
    (content, requiretls): (&[u8], bool),
) -> Result<(), Reply> {
    let created = clock::seconds();
    let is_onward = |target: &&Arc<Target>| relay.is_some_and(|relay| relay.is_queue(target));
    let onward = targets.iter().filter(is_onward);
    let recipients: Vec<QueuedRecipient> = onward
        .map(|target| QueuedRecipient {
            address: target.address.clone(),
            next: created,
            ..QueuedRecipient::default()
        })
        .collect();
    let size = u64::try_from(content.len()).ok();
    let mut spool = state.store.begin(trace, vec![targets], Form::Text, size);
    spool.write(content);
    let draft = match relay.filter(|_| !recipients.is_empty()) {
        None => None,
        Some(relay) => {
            let envelope = Envelope {
                created,
                recipients,
                report: true,
                requiretls,
                ..Envelope::default()
            };
            let content = spool.expect_envelope();
            let draft = relay.queue().draft(spool.id(), envelope, content);
            Some(draft.map_err(|e| {
                log::error!("queue: {e}");
                queue_refusal(&e)
            })?)
        }
    };
    let delivered = spool.commit()?;
    if let (Some(draft), Some(relay)) = (draft, relay) {
        let envelope = draft.keep(delivered.name());
        relay.add(delivered.id(), &envelope);
    }
    Ok(())
}

fn dropped(to: &str, why: &str) -> Result<(), String> {
    log::warn!("report dropped to={to:?}: {why}");
    Ok(())
}
