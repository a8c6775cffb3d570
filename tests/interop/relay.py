#!/usr/bin/env python3
"""Relaying with real programs: a Postfix as the next hop, with STARTTLS, SMTPUTF8 and refusals. All on loopback, in a
temporary directory; what is not installed is printed and skipped. `relay.py MAILSLOT` takes the binary to test."""

import email
import email.policy
import getpass
import os
import pathlib
import smtplib
import subprocess

import interop
from interop import check, find, free_port, mailslot, messages, need, postfix, scratch, skip, wait_for

CERT = interop.REPO / "tests/tls/cert.pem"
KEY = interop.REPO / "tests/tls/key.pem"
COUNT = int(os.environ.get("INTEROP_RELAYED", "200"))
USERS = [f"user{n}@example.org" for n in range(3)] + ["jos\u00e9@example.org"]


def send(url, sender, recipients, text, options=()):
    with smtplib.SMTP("127.0.0.1", interop.port_of(url), timeout=30) as client:
        return client.sendmail(sender, recipients, text.replace("\n", "\r\n").encode(), mail_options=list(options))


def postconf(etc, **settings):
    values = [f"{name}={value}" for name, value in settings.items()]
    subprocess.run([find("postconf"), "-c", str(etc), "-e", *values], check=True, timeout=60)
    subprocess.run([find("postfix"), "-c", str(etc), "reload"], capture_output=True, check=True, timeout=60)


def front(home, name, hop, *args):
    case = home / name
    case.mkdir()
    return case, ["--listen", "smtp://127.0.0.1:0", "-d", "a.example", "--create", "--retry", "1s",
                  "--relay-from", "127.0.0.0/8", "--relay", hop, *args]


def by_postfix(home):
    end = home / "end"
    end.mkdir()
    with mailslot(end, "--listen", "lmtp://127.0.0.1:0", "-d", "example.org", "--create") as (_, urls):
        hop = home / "postfix"
        hop.mkdir()
        port = free_port()
        with postfix(hop, f"lmtp:inet:127.0.0.1:{interop.port_of(urls[0])}", port):
            (hop / "etc/recipients").write_text("".join(f"{user} ok\n" for user in USERS))
            postconf(hop / "etc", smtpd_tls_cert_file=CERT, smtpd_tls_key_file=KEY,
                     smtpd_tls_security_level="may", relay_recipient_maps=f"texthash:{hop}/etc/recipients",
                     smtpd_recipient_restrictions="reject_unlisted_recipient,permit_mynetworks,reject")
            many(home, end, port)
            certificates(home, end, port)
            down_and_up(home, end, hop, port)


def many(home, end, port):
    case, args = front(home, "many", f"smtp://127.0.0.1:{port}")
    with mailslot(case, *args) as (_, urls):
        for number in range(COUNT):
            to = USERS[number % len(USERS)]
            utf8 = ["SMTPUTF8"] if not to.isascii() else []
            send(urls[0], "alice@a.example", [to], f"Subject: n{number}\n\n.dot\nbody {number}\n", utf8)
        arrived = lambda: sum(len(messages(end / "mail/example.org" / user.split("@")[0])) for user in USERS)
        check(f"{COUNT} messages through Postfix, some with SMTPUTF8", wait_for(lambda: arrived() == COUNT, 120),
              f"{arrived()} arrived")
        one = messages(end / "mail/example.org/user0")[0].read_bytes()
        check("Postfix took them by STARTTLS", b"(Postfix) with ESMTPS" in one)
        check("the content is untouched", b"\n\n.dot\nbody" in one)
        send(urls[0], "alice@a.example", ["user0@example.org", "nobody@example.org"], "Subject: lost\n\nx\n")
        inbox = case / "mail/a.example/alice"
        found = wait_for(lambda: messages(inbox))
        check("a refusal of Postfix comes back as a report", bool(found))
        if found:
            report(found[0].read_bytes())
    check("nothing is left in the queue", not list((case / "queue/new").iterdir()))


def report(octets):
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    parts = list(parsed.iter_parts())
    check("Python reads the report", parsed.get_content_type() == "multipart/report" and len(parts) == 3
          and not parsed.defects)
    groups = parts[1].get_payload()
    check("with its fields", groups[1]["Action"] == "failed" and groups[1]["Status"] == "5.1.1"
          and groups[1]["Final-Recipient"].endswith("nobody@example.org"), str(groups[1]))
    check("and Postfix's own words", "550" in groups[1]["Diagnostic-Code"])
    check("and the header of the message", "Subject: lost" in parts[2].as_string())


def certificates(home, end, port):
    before = len(messages(end / "mail/example.org/user1"))
    case, args = front(home, "verified", f"smtp://localhost:{port}?tls=require", "--tls-ca", str(CERT))
    with mailslot(case, *args) as (_, urls):
        send(urls[0], "alice@a.example", ["user1@example.org"], "Subject: v\n\nx\n")
        check("Postfix with a certificate that verifies",
              wait_for(lambda: len(messages(end / "mail/example.org/user1")) > before))
    bundle = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        return skip("a certificate that does not verify", f"no {bundle}")
    case, args = front(home, "unverified", f"smtp://localhost:{port}?tls=require", "--tls-ca", str(bundle))
    with mailslot(case, *args) as (_, urls):
        send(urls[0], "alice@a.example", ["user1@example.org"], "Subject: u\n\nx\n")
        said = wait_for(lambda: "TLS: " in (case / "mailslot.log").read_text())
        check("Postfix with one that does not: the mail waits", said and len(list((case / "queue/new").glob("*,S=*"))) == 1)


def down_and_up(home, end, hop, port):
    before = len(messages(end / "mail/example.org/user2"))
    command = [find("postfix"), "-c", str(hop / "etc")]
    subprocess.run([*command, "stop"], capture_output=True, timeout=60)
    case, args = front(home, "down", f"smtp://127.0.0.1:{port}")
    with mailslot(case, *args) as (_, urls):
        for number in range(20):
            send(urls[0], "alice@a.example", ["user2@example.org"], f"Subject: d{number}\n\nx\n")
        wait_for(lambda: "refused" in (case / "mailslot.log").read_text())
        subprocess.run([*command, "start"], capture_output=True, timeout=60)
        arrived = lambda: len(messages(end / "mail/example.org/user2")) - before
        check("mail waits for a Postfix that is down", wait_for(lambda: arrived() == 20, 60), f"{arrived()} arrived")


def main():
    with scratch("relay") as home:
        root = None if getpass.getuser() == "root" else "needs root"
        if why := root or need("postfix", "master", "postconf"):
            skip("Postfix as the next hop", why)
        else:
            by_postfix(home)
    interop.finish()


if __name__ == "__main__":
    main()
