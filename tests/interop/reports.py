#!/usr/bin/env python3
"""Delivery status notifications as Python's email package reads them: each kind of report, with ASCII and other
addresses, of small and large messages. First with one mailslot in front and one as its next hop, then with a Postfix
and its smtp-sink, on loopback, in a temporary directory. `reports.py MAILSLOT` takes the binary to test."""

import contextlib
import email
import email.policy
import os
import smtplib
import subprocess

import interop
from interop import check, find, free_port, mailslot, messages, need, port_of, postfix, scratch, skip, wait_for

LARGE = "x" * 70 + "\n"


def send(url, mail_options, recipients, text):
    with smtplib.SMTP("127.0.0.1", interop.port_of(url), timeout=30) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        code, said = client.mail("alice@a.example", mail_options)
        assert code == 250, said
        for address, options in recipients:
            command = f"TO:<{address}> {' '.join(options)}".encode()
            client.send(b"RCPT " + command + b"\r\n")
            code, said = client.getreply()
            assert code in (250, 251), (address, said)
        code, said = client.data(text.replace("\n", "\r\n").encode())
        assert code == 250, said


class Inbox:
    """Reports in the order of their arrival, each once."""

    def __init__(self, maildir):
        self.maildir, self.seen = maildir, set()

    def next(self):
        fresh = wait_for(lambda: [path for path in messages(self.maildir) if path not in self.seen], 20) or [None]
        self.seen.add(fresh[0])
        return fresh[0] and fresh[0].read_bytes()


def parse(what, octets):
    """Text, the groups of fields, the returned part; all of it well formed."""
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    parts = list(parsed.iter_parts())
    good = parsed.get_content_type() == "multipart/report" and parsed.get_param("report-type") == "delivery-status"
    defects = [defect for part in parsed.walk() for defect in part.defects]
    check(f"{what}: a report in three parts", good and len(parts) == 3 and not defects, str(defects))
    check(f"{what}: from nobody", parsed["Return-Path"] == "<>" and parsed["Auto-Submitted"] == "auto-replied")
    check(f"{what}: within bounds", len(octets) < 80 * 1024 and max(map(len, octets.split(b"\n"))) <= 998)
    return parts


def fields(part):
    """The recipients' groups of fields, whatever the type of the part."""
    if part.get_content_type() == "message/delivery-status":
        return part.get_payload()
    text = part.get_payload()[0].as_bytes(policy=email.policy.SMTPUTF8.clone(linesep="\n")).decode()
    return [email.message_from_string(group) for group in text.strip().split("\n\n")]


def one(what, inbox, action, address):
    octets = inbox.next()
    check(f"{what}: arrives", bool(octets))
    parts = parse(what, octets)
    groups = fields(parts[1])
    check(f"{what}: {action}", groups[1]["Action"] == action and groups[1]["Final-Recipient"].endswith(address),
          str(groups[1]))
    check(f"{what}: names this host", groups[0]["Reporting-MTA"] == "dns; mx.example.org" and groups[0]["Arrival-Date"])
    return parts, groups


def success(url, inbox):
    text = "Subject: hello\n\nbody\n"
    send(url, ["RET=FULL", "ENVID=E+2B1"], [("bob@a.example", ["NOTIFY=SUCCESS", "ORCPT=rfc822;Bob+2Bx@z.example"])], text)
    parts, groups = one("local delivery", inbox, "delivered", "bob@a.example")
    check("local delivery: what the sender named", groups[0]["Original-Envelope-Id"] == "E+1"
          and groups[1]["Original-Recipient"] == "rfc822; Bob+x@z.example")
    check("local delivery: the header alone", parts[2].get_content_type() == "text/rfc822-headers"
          and "hello" in parts[2].as_string() and "body" not in parts[2].as_string())
    send(url, [], [("team@a.example", ["NOTIFY=SUCCESS"])], text)
    one("a list", inbox, "expanded", "team@a.example")


def failures(url, inbox):
    send(url, ["RET=FULL"], [("nobody@b.example", [])], "Subject: small\n\nsmall body\n")
    parts, groups = one("a small failure", inbox, "failed", "nobody@b.example")
    check("a small failure: the hop's words", "550" in groups[1]["Diagnostic-Code"] and groups[1]["Status"] == "5.1.1")
    whole = parts[2].get_payload()[0]
    check("a small failure: all of the message", parts[2].get_content_type() == "message/rfc822"
          and whole["Subject"] == "small" and "small body" in whole.get_content())
    send(url, ["RET=HDRS"], [("nobody@b.example", [])], "Subject: headers\n\nhidden\n")
    parts, _ = one("RET=HDRS", inbox, "failed", "nobody@b.example")
    check("RET=HDRS: no body", "hidden" not in parts[2].as_string() and "headers" in parts[2].as_string())
    send(url, ["RET=FULL"], [("nobody@b.example", [])], f"Subject: large\n\n{LARGE * 3000}")
    parts, _ = one("a large failure", inbox, "failed", "nobody@b.example")
    check("a large failure: its header alone", parts[2].get_content_type() == "text/rfc822-headers"
          and LARGE not in parts[2].as_string())


def beyond_ascii(url, inbox):
    header = "Subject: gr\u00fc\u00dfe\n\nbody\n"
    recipient = ("jos\u00e9@b.example", ["ORCPT=utf-8;jos\\x{E9}@z.example"])
    with smtplib.SMTP("127.0.0.1", interop.port_of(url), timeout=30) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.mail("alice@a.example", ["SMTPUTF8", "RET=FULL"])
        code, said = client.docmd("RCPT", f"TO:<{recipient[0]}> {recipient[1][0]}")
        check("an address beyond ASCII is taken", code in (250, 251), str(said))
        client.data(header.replace("\n", "\r\n").encode())
    parts, groups = one("beyond ASCII", inbox, "failed", "jos\u00e9@b.example")
    check("beyond ASCII: the types of RFC 6533", parts[1].get_content_type() == "message/global-delivery-status"
          and parts[2].get_content_type() == "message/global")
    check("beyond ASCII: the original recipient", groups[1]["Original-Recipient"] == "utf-8; jos\u00e9@z.example",
          str(groups[1]["Original-Recipient"]))


@contextlib.contextmanager
def sink():
    """A hop that does not offer DSN."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    child = subprocess.Popen([find("smtp-sink"), *user, "-N", f"127.0.0.1:{port}", "100"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        child.kill()
        child.wait()


def passed_on(url, inbox):
    """What Postfix was told is what its own reports say, and whom they are about."""
    text = "Subject: onward\n\nhidden\n"
    recipients = [("one@bad.example", ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;One+2Bx@z.example"]),
                  ("two@bad.example", ["NOTIFY=NEVER"]), ("three@bad.example", ["NOTIFY=SUCCESS"])]
    send(url, ["RET=HDRS", "ENVID=E+2B1"], recipients, text)
    report = email.message_from_bytes(inbox.next() or b"", policy=email.policy.default)
    parts = [part for part in report.iter_parts() if part.get_content_type() != "text/plain"]
    check("Postfix: a report by itself", "mailer-daemon" in report["From"].lower() and len(parts) == 2, str(report)[:300])
    groups = parts[0].get_payload()
    check("Postfix: ENVID", groups[0]["Original-Envelope-Id"] == "E+1", str(groups[0]))
    check("Postfix: ORCPT", groups[1]["Original-Recipient"].replace(" ", "") == "rfc822;One+x@z.example", str(groups[1]))
    check("Postfix: NOTIFY=NEVER and SUCCESS are not told of a failure", len(groups) == 2)
    check("Postfix: RET=HDRS", parts[1].get_content_type() == "text/rfc822-headers", parts[1].get_content_type())
    send(url, ["RET=FULL", "ENVID=E2"], [("one@bad.example", [])], text)
    report = email.message_from_bytes(inbox.next() or b"", policy=email.policy.default)
    parts = [part for part in report.iter_parts() if part.get_content_type() == "message/rfc822"]
    check("Postfix: RET=FULL", len(parts) == 1 and "hidden" in parts[0].as_string())
    send(url, ["ENVID=E3"], [("four@far.example", ["NOTIFY=SUCCESS", "ORCPT=rfc822;four@z.example"])], text)
    report = (inbox.next() or b"").decode()
    check("Postfix: NOTIFY=SUCCESS is told by Postfix, which hands it to a hop without DSN", "Action: relayed" in report
          and "Original-Envelope-Id: E3" in report and "Original-Recipient: rfc822;four@z.example" in report.replace("rfc822; ", "rfc822;"), report[-600:])


def by_postfix(home):
    (home / "postfix").mkdir()
    (home / "postfix").chmod(0o755)
    port = free_port()
    with sink() as plain, mailslot(home, "--listen", "smtp://127.0.0.1:0", "-d", "a.example", "--create",
                                   "--relay-from", "127.0.0.0/8", "--relay", f"smtp://127.0.0.1:{plain}?for=plain.example",
                                   "--relay", f"smtp://127.0.0.1:{port}?for=bad.example&for=far.example") as (_, urls):
        maps = {"a.example": f"smtp:[127.0.0.1]:{port_of(urls[0])}", "bad.example": "error:5.1.1 nobody of that name",
                "far.example": f"smtp:[127.0.0.1]:{plain}"}
        maps = ", ".join(f"{{{domain}={transport}}}" for domain, transport in maps.items())
        with postfix(home / "postfix", "error:none", port, f"transport_maps = inline:{{{maps}}}\n"):
            inbox = Inbox(home / "mail/a.example/alice")
            passed_on(urls[0], inbox)
            # Nobody reports for a hop without DSN, but the one who hands over to it.
            send(urls[0], ["ENVID=E4"], [("five@plain.example", ["NOTIFY=SUCCESS", "ORCPT=rfc822;five@z.example"])], "Subject: x\n\nx\n")
            _, groups = one("a hop without DSN", inbox, "relayed", "five@plain.example")
            check("a hop without DSN: what the sender named", groups[0]["Original-Envelope-Id"] == "E4"
                  and groups[1]["Original-Recipient"] == "rfc822; five@z.example")


def main():
    with scratch("reports") as home:
        end, front = home / "end", home / "front"
        for path in (end, front):
            path.mkdir()
        (end / "users").write_text("known\n")
        (front / "aliases").write_text("team: bob, carol\n")
        with mailslot(end, "--listen", "smtp://127.0.0.1:0", "-d", "b.example", "--users", "users") as (_, hop):
            with mailslot(front, "--listen", "smtp://127.0.0.1:0", "-d", "a.example", "--create", "--aliases", "aliases",
                          "--relay-from", "127.0.0.0/8", "--relay", hop[0]) as (_, urls):
                inbox = Inbox(front / "mail/a.example/alice")
                success(urls[0], inbox)
                failures(urls[0], inbox)
                beyond_ascii(urls[0], inbox)
        if why := need("postfix", "smtp-sink") or (os.geteuid() != 0 and "Postfix wants root"):
            skip("DSN passed on to Postfix", why)
        else:
            (home / "onward").mkdir()
            by_postfix(home / "onward")
    interop.finish()


if __name__ == "__main__":
    main()
