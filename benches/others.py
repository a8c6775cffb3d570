#!/usr/bin/env python3
"""Small programs of the README's comparison and mailslot on this machine: msmtp and dma as `sendmail`, one call per
message, to a sink on loopback; and aiosmtpd with its Maildir handler as a receiver, with Postfix's smtp-source as the
load. `others.py MAILSLOT [DIR]`: the directory receives the mail, and so decides between disk and memory. What is not
installed is skipped; dma is unpacked, because its package conflicts with other mail systems."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests/interop"))
import fronts  # noqa: E402
import interop  # noqa: E402

ROUNDS, CALLS, MESSAGES = 3, 200, 2000
TEXT = b"From: a@here.test\nTo: all@here.test\nSubject: x\n\n" + (b"x" * 70 + b"\n") * 56
AIOSMTPD = """
import sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
controller = Controller(Mailbox(sys.argv[1]), hostname="127.0.0.1", port=int(sys.argv[2]))
controller.start()
while True:
    time.sleep(60)
"""


def count(maildir):
    with os.scandir(maildir) as entries:
        return sum(1 for _ in entries)


def seconds_until(maildir, wanted, begun):
    found = interop.wait_for(lambda: count(maildir) >= wanted, 120)
    assert found, f"{count(maildir)} of {wanted}"
    return time.monotonic() - begun


def senders(home):
    """Calls a second, one after the other, until the sink has all of them."""
    inbox = home / "mail/here.test/all/new"
    with interop.mailslot(home, "--listen", "smtp://127.0.0.1:0", "--domain", "here.test", "--create", "--sync", "none") as (_, urls):
        port = interop.port_of(urls[0])
        os.environ["MAILSLOT_SENDMAIL_TO"] = urls[0]
        link = home / "sendmail"
        link.symlink_to(interop.BINARY)
        programs = {"mailslot's sendmail": [link, "-i", "all@here.test"]}
        if not interop.need("msmtp"):
            programs["msmtp"] = ["msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={port}", "--from=a@here.test", "all@here.test"]
        if root := fronts.unpack(home, ["dma"]):
            (home / "etc/dma").mkdir(parents=True)
            (home / "etc/dma/dma.conf").write_text(f"SMARTHOST 127.0.0.1\nPORT {port}\nMAILNAME sender.test\n")
            script = f"""set -e
mount -t overlay -o lowerdir={root}/usr:/usr overlay /usr
mount -t overlay -o lowerdir={home}/etc:/etc overlay /etc
mkdir -p {home}/spool
mount --bind {home}/spool /var/spool
install -d -g mail -m 2775 /var/spool/dma
exec "$@"
"""
            programs["dma"] = ["unshare", "--mount", "sh", "-c", script, "sh"]
        rates = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, command in programs.items():
                before, begun = (count(inbox) if inbox.exists() else 0), time.monotonic()
                if name == "dma":
                    loop = f'for n in $(seq {CALLS}); do /usr/sbin/dma -i all@here.test <"{home}/text"; done'
                    (home / "text").write_bytes(TEXT)
                    subprocess.run([*command, "sh", "-c", loop], check=True, timeout=300)
                else:
                    for _ in range(CALLS):
                        subprocess.run(command, input=TEXT, check=True, timeout=60)
                rates[name].append(CALLS / seconds_until(inbox, before + CALLS, begun))
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} messages a second, one call each")


def receivers(home):
    """4 KiB messages a second of ten sessions."""
    rates = {"mailslot": [], "aiosmtpd": []}
    for number in range(ROUNDS):
        for name in rates:
            case = home / f"{name}{number}"
            case.mkdir()
            if name == "mailslot":
                with interop.mailslot(case, "--listen", "smtp://127.0.0.1:0", "--domain", "here.test", "--create") as (_, urls):
                    rates[name].append(load(interop.port_of(urls[0]), case / "mail/here.test/all/new"))
                continue
            port = interop.free_port()
            child = subprocess.Popen(["/usr/bin/python3", "-c", AIOSMTPD, case / "all", str(port)])
            try:
                assert interop.listens(port)
                rates[name].append(load(port, case / "all/new"))
            finally:
                child.terminate()
                child.wait()
    for name, found in rates.items():
        print(f"{name}: {statistics.median(found):.0f} messages of 4 KiB a second, 10 sessions")


def load(port, inbox):
    command = [interop.find("smtp-source"), "-s", "10", "-d", "-l", "4096", "-m", str(MESSAGES), "-f", "a@here.test", "-t", "all@here.test", f"127.0.0.1:{port}"]
    begun = time.monotonic()
    subprocess.run(command, check=True, timeout=300)
    return MESSAGES / seconds_until(inbox, MESSAGES, begun)


def main():
    where = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="mailslot-others-", dir=where) as home:
        home = pathlib.Path(home)
        home.chmod(0o755)
        senders(home)
        if interop.need("smtp-source") or subprocess.run(["/usr/bin/python3", "-c", "import aiosmtpd"], capture_output=True).returncode != 0:
            print("aiosmtpd: not installed, or no smtp-source")
        else:
            receivers(home)


if __name__ == "__main__":
    main()
