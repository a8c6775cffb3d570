#!/usr/bin/env python3
"""Interoperation with real programs: Postfix sends by LMTP, Dovecot reads the Maildirs and the users file, and clients
send with each mechanism they have. All of it on loopback, in a temporary directory, with its own configuration
directories; what it started is ended by pid. What is not installed is printed and skipped; with INTEROP_REQUIRED=1 it
is a failure. `interop.py MAILSLOT` takes the binary to test."""

import collections
import contextlib
import getpass
import imaplib
import mailbox
import os
import pathlib
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/mailslot")
REPO = pathlib.Path(__file__).resolve().parents[2]
COUNT = int(os.environ.get("INTEROP_MESSAGES", "1000"))
FAILED, SKIPPED, PASSED = [], [], []


def check(what, good, more=""):
    (PASSED if good else FAILED).append(what)
    print(f"{'ok    ' if good else 'FAILED'} {what} {more}", flush=True)


def skip(what, why):
    SKIPPED.append(what)
    print(f"skip   {what}: {why}", flush=True)


def finish():
    """Says how it went, and exits accordingly."""
    print(f"{len(PASSED)} passed, {len(FAILED)} failed, {len(SKIPPED)} skipped")
    sys.exit(1 if FAILED or (SKIPPED and os.environ.get("INTEROP_REQUIRED") == "1") else 0)


def need(*programs):
    missing = [p for p in programs if not find(p)]
    return f"not installed: {' '.join(missing)}" if missing else None


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/lib/postfix/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def readme(begin):
    """The command block of the README that begins with these words."""
    blocks = (REPO / "README.md").read_text().split("```\n")[1::2]
    return next(block for block in blocks if block.startswith(begin))


@contextlib.contextmanager
def scratch(name):
    """A directory for a run, with the binary in it, where another user than the one that built it can run it."""
    global BINARY
    with tempfile.TemporaryDirectory(prefix=f"mailslot-{name}-") as home:
        home = pathlib.Path(home)
        home.chmod(0o755)
        BINARY = shutil.copy(BINARY, home / "mailslot")
        yield home


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := what()):
            return found
        time.sleep(0.05)
    return None


@contextlib.contextmanager
def mailslot(home, *args, user=None):
    """A server; yields its pid and the addresses it listens on, in order."""
    identity = {"user": user, "group": user, "extra_groups": []} if user else {}
    log = open(home / "mailslot.log", "ab+")
    start = log.tell()
    child = subprocess.Popen([BINARY, "--hostname", "mx.example.org", *args], cwd=home, stderr=log, **identity)
    wanted = args.count("--listen")

    def listening():
        lines = (home / "mailslot.log").read_bytes()[start:].decode().splitlines()
        found = [line.split("listening on ")[1] for line in lines if "listening on " in line]
        if child.poll() is not None:
            raise SystemExit("\n".join(lines))
        return found if len(found) >= wanted else None

    try:
        yield child.pid, wait_for(listening)
    finally:
        child.send_signal(signal.SIGTERM)
        check("mailslot ends with status 0", child.wait(40) == 0)


def listens(port):
    def tried():
        with contextlib.suppress(OSError), smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
            return client.noop()[0] == 250

    return wait_for(tried, 30)


def port_of(url):
    return int(url.rsplit(":", 1)[1])


def messages(maildir):
    return [p for part in ("new", "cur") for p in (maildir / part).glob("*")]


# --- Postfix -------------------------------------------------------------------------------------

USERS = [f"user{n}@example.org" for n in range(5)]
UNKNOWN = [f"nobody{n}@example.org" for n in range(3)]


@contextlib.contextmanager
def postfix(home, transport, port, more=""):
    etc, queue, data = home / "etc", home / "queue", home / "data"
    for path in (etc, queue, data):
        path.mkdir()
    shutil.chown(data, "postfix")
    (etc / "main.cf").write_text(f"""
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
myhostname = front.example.net
mydestination =
inet_interfaces = 127.0.0.1
relay_domains = example.org
relay_transport = {transport}
default_transport = error:no mail leaves this test
smtputf8_enable = yes
lmtp_destination_recipient_limit = 5
lmtp_destination_concurrency_limit = 10
smtpd_recipient_restrictions = permit_mynetworks, reject
mynetworks = 127.0.0.0/8
maillog_file = {home}/maillog
maillog_file_prefixes = /
smtpd_client_connection_count_limit = 100
{more}""")
    (etc / "master.cf").write_text(f"""
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
""")
    command = [find("postfix"), "-c", str(etc)]
    done = subprocess.run([*command, "start"], capture_output=True, text=True, timeout=60)
    try:
        pid_file = queue / "pid/master.pid"
        if not wait_for(pid_file.exists, 20):
            raise SystemExit(f"postfix did not start: {done.stdout}{done.stderr}")
        yield queue
    finally:
        subprocess.run([*command, "stop"], capture_output=True, timeout=60)


def hand_over(port, count):
    """`count` messages: every tenth to an unknown user, every seventh with UTF-8 in its address's
    envelope and header, every third to two users. Returns how many copies each mailbox is owed."""
    owed = collections.Counter()
    bounces = 0

    def connect():
        client = smtplib.SMTP("127.0.0.1", port, timeout=60)
        client.ehlo()
        return client

    client = connect()
    for n in range(count):
        to = [USERS[n % 5]]
        if n % 3 == 0:
            to.append(USERS[(n + 1) % 5])
        if n % 10 == 0:
            to.append(UNKNOWN[n // 10 % 3])
            bounces += 1
        options = []
        subject = f"number {n}"
        if n % 7 == 0:
            options = ["SMTPUTF8", "BODY=8BITMIME"]
            to.append("josé@example.org")
            subject = f"number {n} für José"
        body = f"From: bounces@example.org\r\nSubject: {subject}\r\nX-Number: {n}\r\n\r\n.\r\n..dots\r\nline {n}\r\n"
        client.sendmail("bounces@example.org", to, body.encode(), options)
        for address in to:
            if address not in UNKNOWN:
                owed[address] += 1
    client.quit()
    return owed, bounces


def by_postfix(home, name, transport_of):
    case = home / name.replace(" ", "-")
    case.mkdir()
    case.chmod(0o755)
    users = [*USERS, "bounces@example.org", "josé@example.org"]
    (case / "users").write_text("".join(f"{user}\n" for user in users))
    (case / "mail").mkdir()
    listen, transport = transport_of(case)
    args = ["--listen", listen, "--users", "users", "--domain", "example.org"]
    with mailslot(case, *args) as (_, urls):
        port = free_port()
        with postfix(case, transport(urls), port) as queue:
            owed, bounces = hand_over(port, COUNT)
            owed["bounces@example.org"] = bounces

            def empty():
                kinds = ("maildrop", "incoming", "active", "deferred")
                return not any(p.is_file() for kind in kinds for p in (queue / kind).rglob("*"))

            drained = wait_for(lambda: empty() and all_there(case, owed), 120)
        check(f"{name}: {COUNT} messages, Postfix's queue is empty", bool(drained))
    right = True
    for user, count in owed.items():
        local, domain = user.split("@")
        found = messages(case / "mail" / domain / local)
        numbers = collections.Counter()
        for path in found:
            text = path.read_bytes()
            numbers[text.split(b"X-Number: ")[1].split(b"\n")[0] if b"X-Number: " in text else text] += 1
        doubled = [n for n, times in numbers.items() if times > 1]
        if len(found) != count or (doubled and user != "bounces@example.org"):
            right = False
            print(f"       {user}: {len(found)} of {count}, doubled {len(doubled)}")
    check(f"{name}: none lost, none doubled", right, f"({sum(owed.values())} copies)")
    dsn = [p.read_text(errors="replace") for p in messages(case / "mail/example.org/bounces")]
    check(f"{name}: unknown users are bounced with 5.1.1", len(dsn) == bounces and all("Status: 5.1.1" in d for d in dsn))
    jose = next(iter(messages(case / "mail/example.org/josé")), None)
    text = jose.read_text() if jose else ""
    check(f"{name}: SMTPUTF8 was used", "with UTF8LMTP" in text and "für José" in text)
    check(f"{name}: bodies are equal", "\n\n.\n..dots\nline " in text)


def all_there(case, owed):
    return all(len(messages(case / "mail" / u.split("@")[1] / u.split("@")[0])) >= n for u, n in owed.items())


def chunking(home):
    """BDAT over LMTP by hand: Postfix offers CHUNKING and never sends by it."""
    case = home / "chunking"
    (case / "mail/example.org/alice").mkdir(parents=True)
    with mailslot(case, "--listen", "lmtp://127.0.0.1:0", "--domain", "example.org") as (_, urls):
        client = smtplib.LMTP("127.0.0.1", port_of(urls[0]))
        client.ehlo()
        client.mail("a@b", ["BODY=BINARYMIME"])
        client.rcpt("alice@example.org")
        body = b"Subject: x\r\n\r\n" + bytes(range(256)) * 4000
        half = len(body) // 2
        codes = []
        for piece, last in ((body[:half], b""), (body[half:], b" LAST")):
            client.sock.sendall(b"BDAT %d%s\r\n" % (len(piece), last) + piece)
            codes.append(client.getreply()[0])
        client.quit()
    stored = messages(case / "mail/example.org/alice")
    check("LMTP with CHUNKING and BINARYMIME", codes == [250, 250] and len(stored) == 1 and stored[0].read_bytes().endswith(body))


# --- Dovecot -------------------------------------------------------------------------------------

def dovecot(home):
    case = home / "dovecot"
    case.mkdir()
    case.chmod(0o755)
    hashed = subprocess.run([BINARY, "--hash-password"], input="secret\n", capture_output=True, text=True).stdout.strip()
    # Dovecot serves nobody as root: the mail belongs to a user of its own.
    owner = pwd.getpwnam("mail")
    users = f"alice:{hashed}:{owner.pw_uid}:{owner.pw_gid}::{case}/home/alice::userdb_mail=maildir:{case}/mail/alice userdb_quota_rule=*:storage=1000\n"
    (case / "users").write_text(users)
    for name in ("mail", "home"):
        (case / name).mkdir()
        shutil.chown(case / name, "mail", "mail")
    body = b"Subject: one\r\n\r\n" + b"".join(b"line %d\r\n" % n for n in range(2000))
    with mailslot(case, "--listen", "smtp://127.0.0.1:0", "--users", "users", "--domain", "localhost", "--insecure-auth", user="mail") as (_, urls):
        client = smtplib.SMTP("127.0.0.1", port_of(urls[0]))
        client.login("alice", "secret")
        for _ in range(5):
            client.sendmail("a@b", ["alice@localhost"], body)
        client.quit()
    port = free_port()
    (case / "dovecot.conf").write_text(f"""
base_dir = {case}/run
log_path = {case}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-256
first_valid_uid = 1
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
protocol imap {{
  mail_plugins = quota imap_quota
}}
passdb {{
  driver = passwd-file
  args = {case}/users
}}
userdb {{
  driver = passwd-file
  args = {case}/users
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
""")
    log = open(case / "dovecot.out", "wb")
    child = subprocess.Popen([find("dovecot"), "-F", "-c", str(case / "dovecot.conf")], stderr=log, stdout=log)
    try:
        def connect():
            with contextlib.suppress(OSError):
                return imaplib.IMAP4("127.0.0.1", port)

        imap = wait_for(connect, 20)
        if not imap:
            raise SystemExit((case / "dovecot.out").read_text())
        imap.login("alice", "secret")
        check("Dovecot authenticates against mailslot's users file", True)
        count = int(imap.select("INBOX")[1][0])
        check("Dovecot counts the messages", count == 5, f"({count})")
        fetched = imap.fetch("1", "(RFC822)")[1][0][1]
        check("Dovecot fetches the body, byte-equal", fetched.endswith(body[body.index(b"\r\n\r\n"):]))
        flags = imap.fetch("1", "(FLAGS)")[1][0]
        check("Dovecot sets \\Seen after a read", b"\\Seen" in flags)
        quota = imap.getquotaroot("INBOX")[1]
        used = sum(p.stat().st_size for p in messages(case / "mail/alice"))
        text = str(quota)
        check("Dovecot's quota figure", f"STORAGE {(used + 1023) // 1024} 1000" in text or f"STORAGE {used // 1024} 1000" in text, text)
        lines = (case / "mail/alice/maildirsize").read_text().splitlines()
        total = [sum(int(line.split()[i]) for line in lines[1:]) for i in (0, 1)]
        check("maildirsize agrees with the files", total == [used, 5], str(lines[:2]))
        imap.logout()
    except imaplib.IMAP4.error as error:
        check("Dovecot", False, f"{error} {(case / 'dovecot.log').read_text()[-600:]}")
    finally:
        child.terminate()
        child.wait(30)
    found = mailbox.Maildir(case / "mail/alice", create=False)
    check("Python's mailbox.Maildir reads it", len(found) == 5 and all(m["Subject"] == "one" for m in found))


# --- Clients -------------------------------------------------------------------------------------

NODE = """
const [port, secure, authMethod] = process.argv.slice(2);
require("nodemailer").createTransport({
  host: "127.0.0.1", port: Number(port), secure: secure === "true", requireTLS: secure !== "true",
  authMethod, auth: { user: "alice", pass: "secret" }, tls: { rejectUnauthorized: false },
}).sendMail({ from: "alice@localhost", to: "bob@localhost", subject: "x", text: "hello" })
  .catch((error) => { console.error(error); process.exit(1); });
"""


def nodemailer(case):
    """Why it cannot be tried, if it cannot."""
    if missing := need("node", "npm"):
        return missing
    install = ["npm", "install", "--silent", "--prefix", str(case), "nodemailer"]
    try:
        subprocess.run(install, check=True, timeout=60, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return "npm has no nodemailer here"
    (case / "send.js").write_text(NODE)
    return None


def clients(home):
    case = home / "clients"
    (case / "mail").mkdir(parents=True)
    (case / "users").write_text("alice:{PLAIN}secret\nbob:{PLAIN}other\n")
    (case / "m").write_bytes(b"From: alice@localhost\r\nTo: bob@localhost\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n")
    tls = ["--tls-cert", str(REPO / "tests/tls/cert.pem"), "--tls-key", str(REPO / "tests/tls/key.pem")]
    listen = ["--listen", "submission://127.0.0.1:0", "--listen", "submissions://127.0.0.1:0"]
    with mailslot(case, *listen, "--users", "users", "--domain", "localhost", *tls) as (_, urls):
        clear, implicit = map(port_of, urls)
        inbox = case / "mail/localhost/bob"

        def sends(what, run):
            before = len(messages(inbox))
            try:
                good, said = run()
            except (OSError, smtplib.SMTPException, subprocess.TimeoutExpired) as error:
                good, said = False, str(error)
            after = len(messages(inbox))
            check(what, good and after == before + 1, "" if good and after == before + 1 else said[-300:])

        def program(*command, **kwargs):
            def run():
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)
                return done.returncode == 0, done.stdout + done.stderr

            return run

        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            def smtp(mechanism=mechanism, secure=False):
                context = ssl._create_unverified_context()
                if secure:
                    client = smtplib.SMTP_SSL("127.0.0.1", implicit, context=context)
                else:
                    client = smtplib.SMTP("127.0.0.1", clear)
                    client.starttls(context=context)
                client.ehlo()
                client.user, client.password = "alice", "secret"
                name = "auth_" + mechanism.lower().replace("-", "_")
                client.auth(mechanism, getattr(client, name))
                client.sendmail("alice@localhost", ["bob@localhost"], (case / "m").read_bytes())
                client.quit()
                return True, ""

            sends(f"smtplib {mechanism} over STARTTLS", smtp)
            sends(f"smtplib {mechanism} over implicit TLS", lambda m=mechanism: smtp(m, True))
        if missing := need("curl"):
            skip("curl", missing)
        else:
            common = ["-sS", "-k", "-u", "alice:secret", "--mail-from", "alice@localhost", "--mail-rcpt", "bob@localhost", "-T", str(case / "m")]
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"):
                if mechanism.startswith("SCRAM") and "gsasl" not in subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout:
                    skip(f"curl {mechanism}", "this curl is built without it")
                    continue
                login = ["--login-options", f"AUTH={mechanism}"]
                sends(f"curl {mechanism} over STARTTLS", program("curl", "--ssl-reqd", *login, f"smtp://127.0.0.1:{clear}", *common))
                sends(f"curl {mechanism} over implicit TLS", program("curl", *login, f"smtps://127.0.0.1:{implicit}", *common))
        if missing := need("swaks"):
            skip("swaks", missing)
        else:
            common = ["--server", "127.0.0.1", "-au", "alice", "-ap", "secret", "-f", "alice@localhost", "-t", "bob@localhost", "--body", "hello\n.dot"]
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                sends(f"swaks {mechanism} over STARTTLS", program("swaks", "-tls", "-p", str(clear), "-a", mechanism, *common))
                sends(f"swaks {mechanism} over implicit TLS", program("swaks", "-tlsc", "-p", str(implicit), "-a", mechanism, *common))
        if why := nodemailer(case):
            skip("nodemailer", why)
        else:
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                for what, port, secure in (("STARTTLS", clear, "false"), ("implicit TLS", implicit, "true")):
                    sends(f"nodemailer {mechanism} over {what}", program("node", "send.js", str(port), secure, mechanism, cwd=case))
        if missing := need("msmtp"):
            skip("msmtp", missing)
        else:
            for mechanism in ("plain", "login", "cram-md5", "scram-sha-256"):
                for what, port, starttls in (("STARTTLS", clear, "on"), ("implicit TLS", implicit, "off")):
                    command = ["msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={port}", f"--auth={mechanism}", "--user=alice", "--passwordeval=echo secret", "--tls=on", f"--tls-starttls={starttls}", "--tls-certcheck=off", "--from=alice@localhost", "bob@localhost"]
                    sends(f"msmtp {mechanism} over {what}", program(*command, input=(case / "m").read_text()))


def by_curl(case, port, attachment):
    if need("curl"):
        return

    def send(content, *to):
        (case / "content").write_bytes(content)
        recipients = [word for name in to for word in ("--mail-rcpt", f"{name}@localhost")]
        command = ["curl", "-sS", f"smtp://127.0.0.1:{port}", "--mail-from", "a@b", *recipients, "-T", str(case / "content")]
        subprocess.run(command, check=True, timeout=60)

    send(b"Subject: p\r\n\r\nplain\r\n", "curl-plain")
    send(b"Subject: d\r\n\r\n.\r\n..\r\n.a\r\n", "curl-dots")
    send("Subject: für\r\n\r\nä\r\n".encode(), "curl-josé")
    send(attachment, "curl-big")
    send(b"Subject: all\r\n\r\nx\r\n", *(f"curl{n}" for n in range(50)))


def by_swaks(case, port):
    if need("swaks"):
        return

    def send(to, *more):
        command = ["swaks", "--server", f"127.0.0.1:{port}", "-f", "a@b", "-t", to, *more]
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    (case / "content").write_bytes(b"Subject: big\n\n" + b"x" * 20_000_000 + b"\n")
    send("swaks-plain@localhost", "--body", "plain")
    send("swaks-dots@localhost", "--body", ".\n..\n.a")
    send("swaks-utf8@localhost", "--header", "Subject: für")
    send("swaks-big@localhost", "--data", f"@{case}/content")
    send(",".join(f"swaks{n}@localhost" for n in range(50)), "--body", "x")


def shapes(home):
    """What issue trackers are full of: dots, UTF-8, size, many recipients; by three clients."""
    case = home / "shapes"
    case.mkdir()
    attachment = b"Subject: big\r\n\r\n" + (b"x" * 76 + b"\r\n") * 270_000
    with mailslot(case, "--listen", "smtp://127.0.0.1:0", "--create", "--domain", "localhost") as (_, urls):
        port = port_of(urls[0])
        client = smtplib.SMTP("127.0.0.1", port)
        client.ehlo()
        client.sendmail("a@b", ["dots@localhost"], b"Subject: d\r\n\r\n.\r\n..\r\n.a\r\n")
        client.sendmail("a@b", ["josé@localhost"], "Subject: für\r\n\r\nä\r\n".encode(), ["SMTPUTF8", "BODY=8BITMIME"])
        client.sendmail("a@b", ["big@localhost"], attachment)
        client.sendmail("a@b", [f"u{n}@localhost" for n in range(50)], b"Subject: all\r\n\r\nx\r\n")
        client.quit()
        by_curl(case, port, attachment)
        by_swaks(case, port)
    mail = case / "mail/localhost"

    def only(name):
        found = messages(mail / name)
        return found[0].read_bytes() if len(found) == 1 else b""

    check("dot lines", only("dots").endswith(b"\n\n.\n..\n.a\n"))
    check("UTF-8 address and header", only("josé").endswith("Subject: für\n\nä\n".encode()))
    big = attachment.replace(b"\r\n", b"\n")
    check("20 MB by smtplib", only("big").endswith(big))
    for program in ("curl", "swaks"):
        if need(program):
            skip(program, "not installed")
            continue
        check(f"{program}: plain", b"\n\nplain\n" in only(f"{program}-plain"))
        check(f"{program}: dot lines", b"\n\n.\n..\n.a\n" in only(f"{program}-dots"))
        # swaks knows no SMTPUTF8: its UTF-8 is in the header alone.
        name = "curl-josé" if program == "curl" else "swaks-utf8"
        check(f"{program}: UTF-8", "Subject: für\n".encode() in only(name))
        check(f"{program}: 20 MB", (big if program == "curl" else b"x" * 20_000_000) in only(f"{program}-big"))
        inodes = {messages(mail / f"{program}{n}")[0].stat().st_ino for n in range(50)}
        check(f"{program}: 50 recipients, one inode", len(inodes) == 1)
    inodes = {messages(mail / f"u{n}")[0].stat().st_ino for n in range(50)}
    check("50 recipients, one inode", len(inodes) == 1)
    if missing := need("mutt"):
        skip("mutt", missing)
    else:
        done = subprocess.run(["mutt", "-n", "-F", "/dev/null", "-R", "-f", str(mail / "dots"), "-e", "push '<exit>'"], capture_output=True, timeout=30, env={**os.environ, "TERM": "dumb"}, stdin=subprocess.DEVNULL)
        check("mutt opens a Maildir", b"not a mailbox" not in done.stderr + done.stdout)


def main():
    with scratch("interop") as home:
        shapes(home)
        chunking(home)
        clients(home)
        root = None if getpass.getuser() == "root" else "needs root"
        if why := root or need("postfix", "master"):
            skip("Postfix", why)
        else:
            by_postfix(home, "Postfix over a Unix socket", lambda case: (
                f"lmtp:{case}/lmtp?group=postfix&mode=0660", lambda _: f"lmtp:unix:{case}/lmtp"))
            by_postfix(home, "Postfix over TCP", lambda case: (
                "lmtp://127.0.0.1:0", lambda urls: f"lmtp:inet:127.0.0.1:{port_of(urls[0])}"))
        if why := root or need("dovecot"):
            skip("Dovecot", why)
        else:
            dovecot(home)
    print(f"{len(PASSED)} passed, {len(FAILED)} failed, {len(SKIPPED)} skipped")
    required = os.environ.get("INTEROP_REQUIRED") == "1"
    sys.exit(1 if FAILED or (required and SKIPPED) else 0)


if __name__ == "__main__":
    main()
