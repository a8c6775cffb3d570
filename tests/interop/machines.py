#!/usr/bin/env python3
"""More than one machine: three instances on one tree behind HAProxy. `machines.py MAILSLOT`. What is not installed is
printed and skipped."""

import collections
import smtplib
import subprocess
import threading
import time

import interop
from interop import check, find, free_port, listens, messages, need, scratch, skip, wait_for


def haproxy(home):
    """Three instances under three names on one tree; one is killed while mail flows."""
    case = home / "several"
    (case / "mail").mkdir(parents=True)
    proxy = b"--trust" in subprocess.run([interop.BINARY, "--help"], capture_output=True).stdout
    options = ["--trust", "127.0.0.0/8"] if proxy else []
    children, ports = [], []
    for number in range(3):
        log = case / f"{number}.log"
        listen = f"smtp://127.0.0.1:0{'?proxy' if proxy else ''}"
        command = [interop.BINARY, "--hostname", f"mx{number}.here.test", "--listen", listen, "--domain", "here.test", "--create", "--max-per-client", "500", *options]
        children.append(subprocess.Popen(command, cwd=case, stderr=open(log, "wb")))
        line = wait_for(lambda: [l for l in log.read_text().splitlines() if "listening on" in l], 20)
        ports.append(int(line[0].split("127.0.0.1:")[1].split("?")[0]))
    port = free_port()
    servers = "\n".join(f"  server mx{n} 127.0.0.1:{p}{' send-proxy-v2' if proxy else ''} check inter 200ms" for n, p in enumerate(ports))
    (case / "haproxy.cfg").write_text(f"""
defaults
  mode tcp
  timeout connect 2s
  timeout client 1m
  timeout server 1m
  option redispatch
listen mail
  bind 127.0.0.1:{port}
  balance roundrobin
  default-server {'check-send-proxy' if proxy else ''}
  option smtpchk EHLO check.test
{servers}
""")
    balancer = subprocess.Popen([find("haproxy"), "-f", case / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=open(case / "haproxy.log", "wb"))
    acknowledged, open_ended, lock = [], [], threading.Lock()
    stop = time.monotonic() + 6

    def client(session):
        number = 0
        while time.monotonic() < stop:
            number += 1
            name = f"{session}-{number}"
            try:
                with smtplib.SMTP("127.0.0.1", port, timeout=20, local_hostname="client.test") as smtp:
                    smtp.sendmail("s@client.test", ["all@here.test", f"u{session}@here.test"], f"Subject: {name}\r\n\r\nx\r\n")
                    with lock:
                        acknowledged.append(name)
            except (OSError, smtplib.SMTPException):
                with lock:
                    open_ended.append(name)  # no reply: it may have arrived

    try:
        if not listens(port):
            return check("HAProxy starts", False, (case / "haproxy.log").read_text()[-500:])
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        [thread.start() for thread in threads]
        time.sleep(2)
        children[0].kill()
        [thread.join() for thread in threads]
    finally:
        balancer.kill()
        balancer.wait()
        for child in children:
            child.terminate()
            child.wait()
    found = collections.Counter()
    for path in messages(case / "mail/here.test/all"):
        found[path.read_text().split("Subject: ")[1].split("\n")[0]] += 1
    lost = [name for name in acknowledged if found[name] == 0]
    doubled = [name for name, times in found.items() if times > 1]
    hosts = {host for path in messages(case / "mail/here.test/all") for host in range(3) if f"mx{host}.here.test" in path.name}
    by = f"HAProxy {'with PROXY v2' if proxy else 'without PROXY'}"
    check(f"{by}, three instances, one killed: nothing acknowledged is lost, nothing doubled", not lost and not doubled and len(acknowledged) > 50 and hosts == {0, 1, 2}, f"{len(acknowledged)} acknowledged, {len(open_ended)} without an answer, {len(lost)} lost, {len(doubled)} doubled, written by {sorted(hosts)}")


def main():
    with scratch("machines") as home:
        if why := need("haproxy"):
            skip("HAProxy", why)
        else:
            haproxy(home)
    interop.finish()


if __name__ == "__main__":
    main()
