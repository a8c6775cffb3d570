#!/usr/bin/env python3
"""The programs of a Debian host that call sendmail, each as it really calls it: in a mount namespace
/usr/sbin/sendmail, /usr/lib/sendmail, mailq and newaliases are mailslot, and its server listens where they look for it,
on /run/mailslot/smtp. `callers.py MAILSLOT`, as root. Small packages that are not installed are unpacked in the
namespace and run from there; what cannot run on this machine is printed and skipped."""

import os
import pathlib
import shutil
import subprocess

import interop
from fronts import unpack
from interop import check, mailslot, messages, scratch, skip, wait_for

BODY = "hello\n.\nmore\n"
# What each program needs: a file below /usr that tells that it is there, and the small package that has it. Large ones are
# only tried where they are installed.
NEEDED = {
    "cron": {"sbin/cron": "cron"},
    "anacron": {"sbin/anacron": "anacron"},
    "mdadm": {"sbin/mdadm": "mdadm"},
    "smartd": {"share/smartmontools/smartd_warning.sh": "smartmontools", "bin/bsd-mailx": "bsd-mailx"},
    "logwatch": {"sbin/logwatch": "logwatch", "share/perl5/Date/Manip.pm": "libdate-manip-perl"},
    "bsd-mailx": {"bin/bsd-mailx": "bsd-mailx", "lib/*/liblockfile.so.1": "liblockfile1"},
    "s-nail": {"bin/s-nail": "s-nail"},
    "mutt": {"bin/mutt": None},
    "mail.mailutils": {"bin/mail.mailutils": None},
    "php": {"bin/php": None},
    "git": {"bin/git": None, "lib/git-core/git-send-email": "git-email", "share/perl5/Mail/Address.pm": "libmailtools-perl"},
}


class Host:
    """A Debian host whose mail system is mailslot."""

    def __init__(self, home):
        self.home = home
        self.root = self.unpacked()
        for name in ("usr/sbin", "usr/lib", "usr/bin", "etc", "run/mailslot", "mail"):
            (home / "host" / name).mkdir(parents=True)
        usr = home / "host/usr"
        (usr / "sbin/sendmail").symlink_to(interop.BINARY)
        for name in ("lib/sendmail", "bin/mailq", "bin/newaliases"):
            (usr / name).symlink_to("../sbin/sendmail")
        # As Debian's alternatives have it, for scripts that call it by that name.
        (usr / "bin/mail").symlink_to("bsd-mailx")

    def unpacked(self):
        """What is not installed; None where nothing is missing, or nothing can be had."""
        files = [item for files in NEEDED.values() for item in files.items()]
        wanted = {package for file, package in files if package and not list(pathlib.Path("/usr").glob(file))}
        root = unpack(self.home, sorted(wanted)) if wanted else None
        # Where a host has one directory for both.
        for name in ("sbin", "bin", "lib"):
            if root and (root / name).is_dir():
                shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
        return root

    def missing(self, program):
        """The files that a program wants and that are not on this host."""
        trees = [pathlib.Path("/usr"), *([self.root / "usr"] if self.root else [])]
        return [file for file in NEEDED[program] if not any(list(tree.glob(file)) for tree in trees)]

    def has(self, program):
        """True if it can run on this host; if not, that is told."""
        missing = self.missing(program)
        if missing:
            why = "not installed, and its package is large" if None in NEEDED[program].values() else "no package to be had"
            skip(program, f"{why}: no /usr/{missing[0]}")
        return not missing

    def layers(self, name):
        """What is seen at /usr or /etc, from the top."""
        return ":".join(str(tree / name) for tree in (self.home / "host", self.root, pathlib.Path("/")) if tree and (tree / name).is_dir())

    def command(self, *words):
        script = f"""set -e
mount -t overlay -o lowerdir={self.layers('usr')} overlay /usr
mount -t overlay -o lowerdir={self.layers('etc')} overlay /etc
mount --bind {self.home}/host/run /run
mount -t tmpfs none /var/spool
mount -t tmpfs none /root
mkdir -p /var/spool/cron/crontabs /var/spool/anacron
[ ! -d /etc/cron.d ] || mount -t tmpfs none /etc/cron.d
exec "$@"
"""
        return ["unshare", "--mount", "sh", "-c", script, "sh", *map(str, words)]

    def run(self, *words, text=BODY, env=None):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "dumb", **(env or {})}
        return subprocess.run(self.command(*words), input=text, text=True, env=env, cwd=self.home, capture_output=True, timeout=120)

    def inbox(self, name):
        return messages(self.home / "mail/a.example" / name)


def arrived(host, name, done, what, words=BODY, times=1):
    """Checks that a caller is content and its mail has come, once and whole."""
    found = wait_for(lambda: host.inbox(name), 10) or []
    texts = [path.read_text() for path in found]
    good = done.returncode == 0 and len(texts) == times and all(words in text for text in texts)
    whole = all(text.split("\n\n")[0].lower().count(f"\n{field}: ") == 1 for text in texts for field in ("from", "date", "message-id"))
    more = "" if good and whole else f"exit {done.returncode} {done.stdout[-300:]} {done.stderr[-300:]} {texts[:1]}"
    check(f"{what} sends by sendmail", good and whole, more)


MAILERS = {
    "bsd-mailx": ["bsd-mailx", "-s", "hi"],
    # Its mail ends at a lone dot otherwise.
    "mail.mailutils": ["mail.mailutils", "-E", "set nodot", "-s", "hi"],
    "s-nail": ["s-nail", "-n", "-S", "sendwait", "-s", "hi"],
    "mutt": ["mutt", "-n", "-F", "/dev/null", "-x", "-s", "hi"],
}


def mailers(host):
    """Programs that a person or a script writes mail with."""
    for name, command in MAILERS.items():
        if host.has(name):
            to = name.split(".")[-1]
            done = host.run(*command, f"{to}@a.example", f"{to}-other@a.example")
            arrived(host, to, done, name)
            arrived(host, f"{to}-other", done, f"{name}, to a second recipient,")


# As smartd calls its script for a test.
SMARTD = {
    "MAILER": "/usr/share/smartmontools/smartd-runner", "ADDRESS": "smartd@a.example", "DEVICE": "/dev/sda", "DEVICETYPE": "sat",
    "DEVICESTRING": "/dev/sda [SAT]", "DEVICEINFO": "none", "FAILTYPE": "EmailTest", "TFIRST": "now", "TFIRSTEPOCH": "1",
    "PREVCNT": "0", "MESSAGE": "TEST EMAIL from smartd",
}


def daemons(host):
    """Programs that report by mail."""
    if host.has("mdadm"):
        # Without an array there is still the test message for the device named.
        done = host.run("mdadm", "--monitor", "--test", "--oneshot", "--mail=mdadm@a.example", "/dev/md0", text="")
        arrived(host, "mdadm", done, "mdadm --monitor --test", "A TestMessage event")
    if host.has("smartd"):
        env = {f"SMARTD_{name}": value for name, value in SMARTD.items()}
        done = host.run("/usr/share/smartmontools/smartd_warning.sh", text="", env=env)
        arrived(host, "smartd", done, "smartd's script", "TEST EMAIL from smartd")
    if host.has("logwatch"):
        command = ["logwatch", "--output", "mail", "--mailto", "logwatch@a.example", "--range", "all", "--detail", "high"]
        arrived(host, "logwatch", host.run(*command, text=""), "logwatch", "Logwatch")
    if host.has("cron"):
        cron(host)
    if host.has("anacron"):
        (host.home / "anacrontab").write_text("MAILTO=anacron@a.example\nSHELL=/bin/sh\n1 0 job echo hello; echo .; echo more\n")
        done = host.run("anacron", "-d", "-f", "-n", "-t", host.home / "anacrontab", text="")
        # It calls sendmail without -i, where a lone dot ends the message.
        arrived(host, "anacron", done, "anacron", "\n\nhello\n")


def cron(host):
    """It mails what a job prints."""
    (host.home / "host/etc/crontab").write_text("MAILTO=cron@a.example\n@reboot root echo hello; echo .; echo more\n")
    with open(host.home / "cron.log", "wb") as log:
        child = subprocess.Popen(host.command("cron", "-f"), stdout=log, stderr=log)
    try:
        found = wait_for(lambda: host.inbox("cron"), 30)
    finally:
        child.terminate()
        child.wait()
    text = found[0].read_text() if found else (host.home / "cron.log").read_text()
    good = BODY in text and "\nSubject: Cron <root@" in text and "\nFrom: root (Cron Daemon)" in text
    check("cron sends by sendmail", good, "" if good else text)


PHP = """
$from = ['From' => 'www@a.example', 'Bcc' => 'php-bcc@a.example'];
exit(mail('php@a.example', 'hi', "hello\\n.\\nmore\\n", $from, '-fwww@a.example') ? 0 : 1);
"""
# As reportbug, Django and others pipe into it.
PYTHON = """
import email.message, subprocess, sys
m = email.message.EmailMessage()
m["From"], m["To"], m["Bcc"], m["Subject"] = "A <a@a.example>", "python@a.example", "python-bcc@a.example", "h\\u00fc"
m.set_content("hello\\n.\\nmore\\n")
sys.exit(subprocess.run(["/usr/sbin/sendmail", "-t", "-oi", "-oem", "-f", "a@a.example"], input=bytes(m)).returncode)
"""
PATCH = """From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <author@a.example>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] x

hello
.
more
---
 1 file changed
"""
SEND_EMAIL = ["git", "-c", "user.name=A", "-c", "user.email=a@a.example", "send-email", "--quiet", "--confirm=never",
              "--suppress-cc=all", "--from=a@a.example", "0001.patch"]


def languages(host):
    """Libraries of programming languages, and git."""
    done = host.run("python3", "-c", PYTHON)
    arrived(host, "python", done, "Python")
    arrived(host, "python-bcc", done, "Python, to Bcc,")
    if host.has("php"):
        done = host.run("php", "-n", "-r", PHP)
        arrived(host, "php", done, "PHP's mail()")
        arrived(host, "php-bcc", done, "PHP's mail(), to Bcc,")
    told = [path.read_text() for name in ("php", "python") for path in host.inbox(name)]
    check("no Bcc field is left", told and not any("bcc" in text.split("\n\n")[0].lower() for text in told))
    (host.home / "0001.patch").write_text(PATCH)
    if host.has("git"):
        arrived(host, "git", host.run(*SEND_EMAIL, "--to=git@a.example", text=""), "git send-email")


def names(host):
    done = host.run("mailq", "--queue", str(host.home / "host"))
    check("mailq lists a queue", done.returncode == 0 and "queue is empty" in done.stdout, done.stderr)
    done = host.run("newaliases")
    check("newaliases says that it does nothing", done.returncode == 0 and "nothing to do" in done.stdout, done.stderr)


def statuses(host, to, status):
    """How sendmail exits, and that its callers tell of it: by their own status, or by passing on what it prints."""
    done = host.run("/usr/sbin/sendmail", "-oi", *to.split())
    good = done.returncode == status and done.stderr.startswith("sendmail: ")
    check(f"sendmail exits with {status}", good, f"{done.returncode} {done.stderr.strip()}")
    callers = {**MAILERS, "php": ["php", "-n", "-r", f"exit(mail('{to}', 'hi', 'x') ? 0 : 1);"], "git": [*SEND_EMAIL, f"--to={to}"]}
    for name, command in callers.items() if to else ():
        words = [] if name in ("php", "git") else [to]
        if not host.missing(name):
            done = host.run(*command, *words, text="" if name == "git" else BODY)
            said = done.stdout + done.stderr
            # mailutils keeps what sendmail prints to itself.
            good = done.returncode != 0 and ("sendmail: " in said or name == "mail.mailutils")
            check(f"{name} tells of a {status}", good, f"exit {done.returncode}" if good else said)


def main():
    with scratch("callers") as home:
        if os.geteuid() != 0:
            skip("callers of sendmail", "needs root")
        elif subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            skip("callers of sendmail", "no mount namespace here")
        else:
            host = Host(home)
            listen = f"smtp:{home}/host/run/mailslot/smtp?mode=0666"
            with mailslot(home, "--listen", listen, "--domain", "a.example", "--create"):
                mailers(host)
                daemons(host)
                languages(host)
                names(host)
                statuses(host, "", 64)
                statuses(host, "a/b@a.example", 67)
                statuses(host, "nobody@elsewhere.example", 69)
            statuses(host, "a@a.example", 75)
    interop.finish()


if __name__ == "__main__":
    main()
