#!/usr/bin/env python3
"""Delivery status notifications as Python's email package reads them: each kind of report, in ASCII and with addresses
beyond it, of small and large messages. One mailslot in front and one as its next hop, on loopback, in a temporary
directory. `reports.py MAILSLOT` takes the binary to try."""

import email
import email.policy
import smtplib

import interop
from interop import check, mailslot, messages, scratch, wait_for

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
    interop.finish()


if __name__ == "__main__":
    main()
