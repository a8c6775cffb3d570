#!/usr/bin/env python3
"""Other servers in front, as the README configures them: Exim sends by LMTP and OpenSMTPD by SMTP; rspamd marks spam as a
milter of Postfix; and fail2ban reads the log. `fronts.py MAILSLOT`, as root. Exim and OpenSMTPD conflict with Postfix as
packages, so they are unpacked and run in a mount namespace of their own. What cannot run here is printed and skipped."""

import collections
import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import smtplib
import socket
import subprocess

import interop
from interop import check, find, free_port, listens, mailslot, messages, need, port_of, scratch, skip, wait_for

USERS = {"Debian-exim": 201, "opensmtpd": 202, "opensmtpq": 203}


def unpack(home, packages):
    """Debian's packages in a directory; None where they cannot be had."""
    root = home / "root"
    root.mkdir()
    apt = subprocess.run(["apt-get", "download", *packages], cwd=home, capture_output=True, timeout=300) if find("apt-get") else None
    if apt is None or apt.returncode != 0:
        return None
    for package in home.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    return root


@contextlib.contextmanager
def unpacked(home, root, command, spool=None):
    """Runs a daemon where /usr holds the packages too, with their users, and empty spools: in memory, or in a directory."""
    passwd, group = home / "passwd", home / "group"
    passwd.write_text(pathlib.Path("/etc/passwd").read_text() + "".join(f"{n}:x:{i}:{i}::/nonexistent:/bin/false\n" for n, i in USERS.items()))
    group.write_text(pathlib.Path("/etc/group").read_text() + "".join(f"{n}:x:{i}:\n" for n, i in USERS.items()))
    script = f"""set -e
mount -t overlay -o lowerdir={root}/usr:/usr overlay /usr
mount --bind {passwd} /etc/passwd
mount --bind {group} /etc/group
{f'mount --bind {spool}' if spool else 'mount -t tmpfs none'} /var/spool
mount -t tmpfs none /var/lib
mkdir -p /var/lib/opensmtpd/empty /var/spool/exim4
mkdir -m 711 /var/spool/smtpd
chown Debian-exim:Debian-exim /var/spool/exim4
exec "$@"
"""
    with open(home / "daemon.log", "wb") as log:
        child = subprocess.Popen(["unshare", "--mount", "sh", "-c", script, "sh", *map(str, command)], stdout=log, stderr=log, start_new_session=True)
        try:
            yield child
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()


def copies_in(domain):
    return list(domain.glob("*/new/*"))


def by_front(home, name, packages, configure, scheme):
    """A hundred messages through a mail system that hands over by this protocol."""
    case = home / name
    case.mkdir()
    case.chmod(0o755)
    if not (root := unpack(case, packages)):
        return skip(name, f"no packages {' '.join(packages)} to be had")
    (case / "mail").mkdir()
    port = free_port()
    with mailslot(case, "--listen", f"{scheme}://127.0.0.1:0", "--domain", "here.test", "--create") as (_, urls):
        command = configure(case, port, port_of(urls[0]))
        with unpacked(case, root, command):
            if not listens(port):
                return check(f"{name} starts", False, (case / "daemon.log").read_text()[-500:])
            client = smtplib.SMTP("127.0.0.1", port, timeout=60)
            client.ehlo("client.test")
            for number in range(100):
                text = f"From: s@client.test\r\nSubject: {number}\r\n\r\n.dot\r\n..\r\nnumber {number}\r\n"
                client.sendmail("s@client.test", [f"u{number % 5}@here.test", "all@here.test"], text)
            client.quit()
            # Some hand over each recipient in a transaction of its own, so that no one mailbox tells when all is there.
            wait_for(lambda: len(copies_in(case / "mail/here.test")) >= 200, 120)
    copies = copies_in(case / "mail/here.test")
    texts = [path.read_text() for path in messages(case / "mail/here.test/all")]
    numbers = collections.Counter(text.rpartition("number ")[2].strip() for text in texts)
    check(f"{name}: 100 messages for two users each, none lost, none doubled", len(numbers) == len(texts) == 100 and len(copies) == 200, f"{len(texts)} of 100, {len(copies)} of 200 copies")
    check(f"{name}: by {scheme}, bodies are equal", all(f"with {'LMTP' if scheme == 'lmtp' else 'ESMTP'} id" in text and "\n\n.dot\n..\nnumber " in text for text in texts))


def exim(case, port, to):
    spool = case / "spool"
    spool.mkdir()
    os.chown(spool, USERS["Debian-exim"], USERS["Debian-exim"])
    (case / "exim.conf").write_text(f"""
primary_hostname = front.test
spool_directory = {spool}
log_file_path = {case}/exim-%slog
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
keep_environment =
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept domains = here.test
{interop.readme('begin routers').replace('port = 24', f'port = {to}').replace('example.org', 'here.test')}
begin retry
* * F,1h,1m
""")
    os.chown(case, USERS["Debian-exim"], USERS["Debian-exim"])
    return ["/usr/sbin/exim4", "-C", case / "exim.conf", "-bdf", "-q1m"]


def opensmtpd(case, port, to):
    # By SMTP: its relay reads one reply after the dot on LMTP, too, and sends a message for two recipients again.
    config = case / "smtpd.conf"
    recipe = interop.readme('action "mailslot"').replace("127.0.0.1:2525", f"127.0.0.1:{to}").replace("example.org", "here.test")
    config.write_text(f"listen on 127.0.0.1 port {port}\n{recipe}")
    config.chmod(0o600)
    return ["/usr/sbin/smtpd", "-d", "-f", config]


# --- fail2ban ------------------------------------------------------------------------------------


def fail2ban(home):
    case = home / "fail2ban"
    (case / "mail").mkdir(parents=True)
    (case / "users").write_text("alice:{PLAIN}right\n")
    with mailslot(case, "--listen", "submission://127.0.0.1:0", "--users", "users", "--insecure-auth", "--domain", "here.test") as (_, urls):
        for password in ("wrong", "worse", "right"):
            client = smtplib.SMTP("127.0.0.1", port_of(urls[0]))
            with contextlib.suppress(smtplib.SMTPAuthenticationError):
                client.login("alice", password)
            client.close()
    filter_file = interop.REPO / "contrib/fail2ban/mailslot.conf"
    done = subprocess.run([find("fail2ban-regex"), case / "mailslot.log", filter_file], capture_output=True, text=True, timeout=60)
    wrong = (case / "mailslot.log").read_text().count("login failed")
    good = wrong > 0 and f" {wrong} matched" in done.stdout
    check("fail2ban's filter finds each wrong login and no other line", good, f"{wrong} lines" if good else done.stdout[-400:])


# --- rspamd --------------------------------------------------------------------------------------

# Its own test for the action "add header".
SPAM = "YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def rspamd(home):
    """As a milter of Postfix, with the README's --junk."""
    case = home / "rspamd"
    (case / "db").mkdir(parents=True)
    (case / "mail/example.org/user0/.Junk").mkdir(parents=True)
    shutil.chown(case / "db", "_rspamd")
    milter, front = free_port(), free_port()
    (case / "rspamd.conf").write_text(f"""
options {{
  pidfile = "{case}/db/pid";
  tempdir = "{case}/db";
  hs_cache_dir = "{case}/db";
  history_file = "{case}/db/history";
  rrd = "";
  filters = "";
  enable_test_patterns = true; # up to 3.4
  gtube_patterns = "all";
  dns {{ nameserver = ["127.0.0.1"]; timeout = 100ms; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
actions {{ reject = 15; add_header = 6; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{milter}";
  milter = yes;
  count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
""")
    junk = shlex.split(interop.readme("mailslot --users users --maildir").partition("--junk")[2])
    options = [word for value in junk if value != "--junk" for word in ("--junk", value)]
    with open(case / "rspamd.log", "wb") as log:
        child = subprocess.Popen([find("rspamd"), "-f", "-u", "_rspamd", "-g", "_rspamd", "-c", case / "rspamd.conf"], stdout=log, stderr=log)
    try:
        with mailslot(case, "--listen", "lmtp://127.0.0.1:0", "--domain", "example.org", *options) as (_, urls):
            more = f"smtpd_milters = inet:127.0.0.1:{milter}\nmilter_default_action = tempfail\n"
            with interop.postfix(case, f"lmtp:inet:127.0.0.1:{port_of(urls[0])}", front, more):
                def reached():
                    with contextlib.suppress(OSError):
                        return socket.create_connection(("127.0.0.1", milter), 5)

                if not (probe := wait_for(reached, 90)):
                    return check("rspamd starts", False, (case / "rspamd.log").read_text()[-500:])
                probe.close()
                listens(front)
                for text in ("good", SPAM):
                    with smtplib.SMTP("127.0.0.1", front, timeout=60) as client:
                        client.sendmail("s@client.test", ["user0@example.org"], f"From: s@client.test\r\nSubject: x\r\n\r\n{text}\r\n")
                inbox = case / "mail/example.org/user0"
                wait_for(lambda: messages(inbox) and messages(inbox / ".Junk"), 30)
    finally:
        child.terminate()
        child.wait()
    good, spam = ([path.read_text() for path in messages(folder)] for folder in (inbox, inbox / ".Junk"))
    right = len(good) == len(spam) == 1 and "\n\ngood\n" in good[0] and SPAM in spam[0] and "\nX-Spam: Yes\n" in spam[0]
    check("what rspamd marks goes to .Junk, and the rest does not", right, "" if right else f"{good} {spam} {(case / 'rspamd.log').read_text()[-900:]}")


def main():
    with scratch("fronts") as home:
        root = None if os.geteuid() == 0 else "needs root"
        for name, packages, configure, scheme in (("Exim", ["exim4-daemon-light", "exim4-base"], exim, "lmtp"), ("OpenSMTPD", ["opensmtpd"], opensmtpd, "smtp")):
            if why := root or need("unshare", "dpkg"):
                skip(name, why)
            else:
                by_front(home, name, packages, configure, scheme)
        if why := root or need("rspamd", "postfix", "master"):
            skip("rspamd", why)
        else:
            rspamd(home)
        if why := need("fail2ban-regex"):
            skip("fail2ban", why)
        else:
            fail2ban(home)
    interop.finish()


if __name__ == "__main__":
    main()
