#!/usr/bin/env python3
"""Next hops: Exim with STARTTLS, a login and BDAT; OpenSMTPD; a Dovecot by LMTP; a Postfix that requires SCRAM in TLS
from the first octet; hops that misbehave in ways no package does; and fetchmail, which has mail sent by ETRN and
fetches it by ATRN. All on loopback. `hops.py MAILSLOT`; most of it needs root. What cannot run here is printed and
skipped."""

import contextlib
import getpass
import os
import shutil
import smtplib
import socket
import subprocess
import sys
import threading
import time

import fronts
import interop
from interop import check, find, free_port, mailslot, messages, need, port_of, postfix, scratch, skip, wait_for

CERT = interop.REPO / "tests/tls/cert.pem"
KEY = interop.REPO / "tests/tls/key.pem"
TEXT = b"Subject: n%d\r\n\r\n.dot\r\n..\r\nnumber %d\r\n"


def front(home, hop, *args):
    home.mkdir()
    return ["--listen", "smtp://127.0.0.1:0", "-d", "a.example", "--create", "--retry", "1s", "--relay-from", "127.0.0.0/8",
            "--relay", hop, *args]


def send(url, recipients, octets, options=()):
    with smtplib.SMTP("127.0.0.1", port_of(url), timeout=60) as client:
        client.sendmail("alice@a.example", recipients, octets, rcpt_options=list(options))


def waiting(home):
    return len(list((home / "queue/new").glob("*,S=*")))


def secret(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def many(what, case, hop, inboxes, *args):
    """Thirty messages for two users by a hop that hands them on."""
    with mailslot(case, *front(case / "front", hop, *args)) as (_, urls):
        for number in range(30):
            send(urls[0], ["u1@here.test", "u2@here.test"], TEXT % (number, number))
        arrived = lambda: [path.read_bytes() for inbox in inboxes for path in messages(inbox)]
        good = wait_for(lambda: len(arrived()) == 60, 60)
        texts = arrived()
        check(f"{what}: 30 messages for two users", bool(good), f"{len(texts)} of 60 copies")
        check(f"{what}: the content is untouched", all(b"\n\n.dot\n..\nnumber " in text for text in texts))
    return texts


# --- Exim and OpenSMTPD --------------------------------------------------------------------------


def exim(case, port, to):
    command = fronts.exim(case, port, to)
    config = case / "exim.conf"
    for name, source in (("cert.pem", CERT), ("key.pem", KEY)):
        shutil.copy(source, case / name)
        (case / name).chmod(0o644)
    text = config.read_text().replace("tls_advertise_hosts =\n", f"""tls_advertise_hosts = *
tls_certificate = {case}/cert.pem
tls_privatekey = {case}/key.pem
chunking_advertise_hosts = *
dsn_advertise_hosts = *
auth_advertise_hosts = *
""").replace("  accept domains = here.test", "  accept authenticated = *\n    domains = here.test")
    config.write_text(text + """
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if and{{eq{$auth2}{me}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2
""")
    return command


def by_exim(home, case, port, inboxes):
    passwords = secret(home / "exim.passwords", "localhost me secret\n")
    texts = many("Exim", case, f"submission://me@localhost:{port}", inboxes, "--relay-auth", passwords, "--tls-ca", str(CERT))
    check("Exim: by STARTTLS with a login", all(b"with esmtpsa" in text for text in texts))
    log = (case / "exim-mainlog").read_text() if (case / "exim-mainlog").exists() else ""
    came = [line for line in log.splitlines() if " <= " in line]
    check("Exim: by BDAT", came and all(" K " in line for line in came), str(came[:1]))


def by_opensmtpd(home, case, port, inboxes):
    texts = many("OpenSMTPD", case, f"smtp://127.0.0.1:{port}", inboxes)
    check("OpenSMTPD: by SMTP", all(b"OpenSMTPD" in text for text in texts))


def package(home, name, packages, configure, scheme, run):
    case = home / name
    case.mkdir()
    case.chmod(0o755)
    if not (root := fronts.unpack(case, packages)):
        return skip(name, f"no packages {' '.join(packages)} to be had")
    end = case / "end"
    end.mkdir()
    port = free_port()
    inboxes = [end / f"mail/here.test/u{n}" for n in (1, 2)]
    with mailslot(end, "--listen", f"{scheme}://127.0.0.1:0", "-d", "here.test", "--create") as (_, urls):
        with fronts.unpacked(case, root, configure(case, port, port_of(urls[0]))):
            if not interop.listens(port):
                return check(f"{name} starts", False, (case / "daemon.log").read_text()[-500:])
            run(home, case, port, inboxes)


# --- Dovecot and Postfix -------------------------------------------------------------------------


@contextlib.contextmanager
def dovecot(case, config):
    case.mkdir(exist_ok=True)
    (case / "dovecot.conf").write_text(f"base_dir = {case}/run\nlog_path = {case}/dovecot.log\nssl = no\n"
                                       f"first_valid_uid = 1\nservice anvil {{\n  chroot =\n}}\n{config}")
    with open(case / "dovecot.out", "wb") as log:
        child = subprocess.Popen([find("dovecot"), "-F", "-c", str(case / "dovecot.conf")], stdout=log, stderr=log)
    try:
        yield
    finally:
        child.terminate()
        child.wait(30)


def by_dovecot(home):
    """By LMTP on a Unix socket: delivered, and one of two is unknown."""
    case = home / "dovecot"
    case.mkdir()
    shutil.chown(case, "mail")
    case.chmod(0o755)
    uid, gid = case.stat().st_uid, shutil._get_gid("mail")
    (case / "users").write_text(f"known@far.test:{{PLAIN}}x:{uid}:{gid}::{case}/home::\n")
    config = f"""protocols = lmtp
mail_location = maildir:{case}/home/Maildir
passdb {{
  driver = passwd-file
  args = {case}/users
}}
userdb {{
  driver = passwd-file
  args = {case}/users
}}
service lmtp {{
  unix_listener {case}/lmtp {{
    mode = 0666
  }}
}}
"""
    with dovecot(case, config):
        if not wait_for((case / "lmtp").exists, 20):
            return check("Dovecot starts", False, (case / "dovecot.out").read_text()[-500:])
        front_home = case / "front"
        with mailslot(case, *front(front_home, f"lmtp:{case}/lmtp")) as (_, urls):
            send(urls[0], ["known@far.test", "unknown@far.test"], TEXT % (1, 1), ["NOTIFY=SUCCESS,FAILURE"])
            inbox, reports = case / "home/Maildir", case / "mail/a.example/alice"
            good = wait_for(lambda: messages(inbox) and len(messages(reports)) == 2, 30)
            check("Dovecot: by LMTP, a reply for each recipient", bool(good))
            said = b"".join(path.read_bytes() for path in messages(reports))
            check("Dovecot: one report of success and one of failure", b"known@far.test\nAction: delivered" in said
                  and b"unknown@far.test\nAction: failed\nStatus: 5.1.1" in said)


def by_smarthost(home):
    """Postfix behind TLS from the first octet, which lets in who has logged in; Dovecot checks SCRAM for it."""
    case, end = home / "smarthost", home / "smarthost-end"
    case.mkdir()
    end.mkdir()
    auth, port = case / "auth", free_port()
    stored = subprocess.run([find("doveadm"), "pw", "-s", "SCRAM-SHA-256", "-p", "secret"], capture_output=True, text=True, timeout=60)
    (case / "users").write_text(f"me:{stored.stdout.strip()}::::::\n")
    config = f"""protocols =
auth_mechanisms = scram-sha-256
passdb {{
  driver = passwd-file
  args = {case}/users
}}
service auth {{
  unix_listener {auth} {{
    mode = 0666
  }}
}}
"""
    more = f"""smtpd_tls_wrappermode = yes
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {CERT}
smtpd_tls_key_file = {KEY}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
mynetworks = 192.0.2.0/24
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
"""
    with dovecot(case, config), mailslot(end, "--listen", "lmtp://127.0.0.1:0", "-d", "example.org", "--create") as (_, to):
        wait_for(auth.exists, 20)
        (case / "postfix").mkdir()
        with postfix(case / "postfix", f"lmtp:inet:127.0.0.1:{port_of(to[0])}", port, more):
            passwords = secret(case / "passwords", f"localhost:{port} me secret\n")
            with mailslot(case, *front(case / "front", f"submissions://me@localhost:{port}", "--relay-auth", passwords,
                                       "--tls-ca", str(CERT))) as (_, urls):
                send(urls[0], ["u@example.org"], TEXT % (1, 1))
                arrived = wait_for(lambda: messages(end / "mail/example.org/u"), 30)
                log = "" if arrived else (case / "mailslot.log").read_text()[-400:]
                check("a smarthost with submissions and SCRAM-SHA-256", bool(arrived), log)
                if arrived:
                    check("the smarthost saw TLS and the login", b"with ESMTPSA" in arrived[0].read_bytes())


# --- Hops that misbehave -------------------------------------------------------------------------


class Hop:
    """A hop that follows a plan for its first connections, and behaves from then on."""

    def __init__(self, *plan):
        self.plan, self.taken = list(plan), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self.listener.getsockname()[1]}?tls=none"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                fault = self.plan.pop(0) if self.plan else None
                threading.Thread(target=self.serve, args=(peer, fault), daemon=True).start()

    def serve(self, peer, fault):
        with contextlib.suppress(OSError, ValueError), peer, peer.makefile("rb") as lines:
            def say(text):
                octets = text.encode() + b"\r\n"
                for piece in ([octets[i:i + 1] for i in range(len(octets))] if fault == "slow" else [octets]):
                    peer.sendall(piece)
                    time.sleep(0.02 if fault == "slow" else 0)

            say("554 not today" if fault == "554" else "220 hop")
            recipients = []
            while line := lines.readline():
                verb = line.split()[0].upper()
                if fault == "421" and verb == b"RCPT":
                    return say("421 4.3.2 going down")
                if verb == b"RCPT" and fault == "450" and b"two" in line:
                    say("450 4.2.1 later")
                elif verb == b"DATA":
                    say("354 go")
                    while (line := lines.readline()) != b".\r\n":
                        if not line:
                            return None
                    if fault == "drop":
                        return None
                    self.taken += recipients
                    say("250 ok")
                else:
                    recipients = [] if verb == b"MAIL" else recipients
                    if verb == b"RCPT":
                        recipients.append(line.split(b"<")[1].split(b"@")[0].decode())
                    say("221 bye" if verb == b"QUIT" else "250 ok")

    def close(self):
        self.listener.close()


def misbehaving(home):
    everybody = ["one", "three", "two"]
    for what, plan in (("greets with 554", ["554"]), ("says 421 in the middle", ["421"]), ("drops after the dot", ["drop"]),
                       ("puts one of three off", ["450"]), ("sends octet by octet", ["slow", "slow"])):
        case, hop = home / what.replace(" ", "-"), Hop(*plan)
        case.mkdir()
        with mailslot(case, *front(case / "front", hop.url)) as (_, urls):
            send(urls[0], [f"{name}@far.test" for name in everybody], TEXT % (1, 1))
            wait_for(lambda: sorted(hop.taken) == everybody, 30)
            check(f"a hop that {what}: each recipient once in the end", sorted(hop.taken) == everybody, str(hop.taken))
            check(f"a hop that {what}: nothing is left", bool(wait_for(lambda: waiting(case) == 0, 20)))
        hop.close()


# --- fetchmail -----------------------------------------------------------------------------------


def by_fetchmail(home):
    case, end = home / "fetchmail", home / "fetchmail-end"
    case.mkdir()
    end.mkdir()
    (case / "users").write_text("branch:{PLAIN}secret\n")
    with mailslot(end, "--listen", "smtp://127.0.0.1:0", "-d", "branch.test", "-d", "down.test", "--create") as (_, to):
        gone = free_port()
        args = front(case / "front", "atrn:branch?for=branch.test", "--relay", f"smtp://127.0.0.1:{gone}?for=down.test",
                     "--users", "users", "--insecure-auth", "--retry", "1h")
        args.remove("1s")
        args.remove("--retry")
        with mailslot(case, *args) as (_, urls):
            for number in range(3):
                send(urls[0], ["u@branch.test"], TEXT % (number, number))
            log = case / "mailslot.log"
            wait_for(lambda: log.read_text().count("fetches it") >= 1, 20)
            done = fetch(case, f"protocol ODMR service {port_of(urls[0])} user branch password secret "
                               f"fetchdomains branch.test smtphost 127.0.0.1/{port_of(to[0])}")
            arrived = messages(end / "mail/branch.test/u")
            check("fetchmail fetches three messages by ODMR", len(arrived) == 3 and waiting(case) == 0,
                  "" if len(arrived) == 3 else f"{len(arrived)} arrived: {done.stdout[-300:]}{done.stderr[-300:]}")
            again = fetch(case, f"protocol ODMR service {port_of(urls[0])} user branch password secret "
                                f"fetchdomains branch.test smtphost 127.0.0.1/{port_of(to[0])}")
            check("and hears that there is no more", "You have no mail" in again.stdout + again.stderr)
            send(urls[0], ["u@down.test"], TEXT % (9, 9))
            wait_for(lambda: "refused" in log.read_text(), 20)
            hop = home / "fetchmail-hop"
            hop.mkdir()
            with mailslot(hop, "--listen", f"smtp://127.0.0.1:{gone}", "-d", "down.test", "--create"):
                done = fetch(case, f"protocol ETRN service {port_of(urls[0])} fetchdomains down.test")
                good = wait_for(lambda: messages(hop / "mail/down.test/u"), 20)
                check("fetchmail has waiting mail sent by ETRN", bool(good), "" if good else done.stdout[-300:] + done.stderr[-300:])


def fetch(case, options):
    config = case / "fetchmailrc"
    config.write_text(f"poll 127.0.0.1 {options}\n")
    config.chmod(0o600)
    env = {**os.environ, "HOME": str(case), "FETCHMAILHOME": str(case), "LC_ALL": "C"}
    return subprocess.run([find("fetchmail"), "-v", "-f", str(config)], env=env, capture_output=True, text=True, timeout=120)


def main():
    with scratch("hops") as home:
        misbehaving(home)
        root = None if getpass.getuser() == "root" else "needs root"
        for name, programs, run in (
            ("fetchmail", ["fetchmail"], by_fetchmail),
            ("Dovecot by LMTP", ["dovecot", "/usr/lib/dovecot/lmtp"], by_dovecot),
            ("a smarthost with SCRAM", ["dovecot", "doveadm", "postfix", "postconf"], by_smarthost),
        ):
            if why := need(*programs) or (root if name != "fetchmail" else None):
                skip(name, why)
            else:
                run(home)
        for name, packages, configure, scheme, run in (
            ("Exim", ["exim4-daemon-light", "exim4-base"], exim, "lmtp", by_exim),
            ("OpenSMTPD", ["opensmtpd"], fronts.opensmtpd, "smtp", by_opensmtpd),
        ):
            if why := root or need("unshare", "dpkg"):
                skip(name, why)
            else:
                package(home, name, packages, configure, scheme, run)
    print(f"{len(interop.PASSED)} passed, {len(interop.FAILED)} failed, {len(interop.SKIPPED)} skipped")
    required = os.environ.get("INTEROP_REQUIRED") == "1"
    sys.exit(1 if interop.FAILED or (required and interop.SKIPPED) else 0)


if __name__ == "__main__":
    main()
