#!/usr/bin/env python3
"""More than one machine: three instances on one tree behind HAProxy, of which one is killed while mail flows. Then the
same on GlusterFS: each instance has its own mount of a volume with three replicas and a quorum, and the server of one
replica is killed, too. `machines.py MAILSLOT`. What is not installed, or not allowed here, is printed and skipped."""

import collections
import contextlib
import errno
import os
import smtplib
import socket
import subprocess
import threading
import time

import interop
from interop import check, find, free_port, listens, messages, need, scratch, skip, wait_for

INSTANCES = 3
REPLICAS = 3
CLIENTS = 8


@contextlib.contextmanager
def instances(case, trees):
    """A server for each tree; yields their processes and ports."""
    children, ports = [], []
    try:
        for number, tree in enumerate(trees):
            log = case / f"{number}.log"
            options = ["--hostname", f"mx{number}.here.test", "--listen", "smtp://127.0.0.1:0?proxy", "--trust", "127.0.0.0/8"]
            command = [interop.BINARY, *options, "--domain", "here.test", "--create", "--maildir", f"{tree}/mail/%d/%u", "--max-per-client", "500"]
            children.append(subprocess.Popen(command, cwd=case, stderr=open(log, "wb")))
            line = wait_for(lambda: [l for l in log.read_text().splitlines() if "listening on" in l], 20)
            ports.append(int(line[0].split("127.0.0.1:")[1].split("?")[0]))
        yield children, ports
    finally:
        for child in children:
            child.terminate()
            child.wait()


@contextlib.contextmanager
def haproxy(case, ports):
    """HAProxy in front of these ports; yields its own."""
    port = free_port()
    servers = "\n".join(f"  server mx{n} 127.0.0.1:{p} send-proxy-v2 check inter 200ms" for n, p in enumerate(ports))
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
  default-server check-send-proxy
  option smtpchk EHLO check.test
{servers}
""")
    balancer = subprocess.Popen([find("haproxy"), "-f", case / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=open(case / "haproxy.log", "wb"))
    try:
        yield port
    finally:
        balancer.kill()
        balancer.wait()


def load(port, seconds, kill):
    """The clients for some seconds, and `kill` after a third of them. The messages with a 250 for both recipients, and the
    others."""
    acknowledged, others = [], []
    stop = time.monotonic() + seconds

    def client(session):
        number = 0
        while time.monotonic() < stop:
            number += 1
            name = f"{session}-{number}"
            try:
                with smtplib.SMTP("127.0.0.1", port, timeout=60, local_hostname="client.test") as smtp:
                    to = ["all@here.test", f"u{session}@here.test"]
                    refused = smtp.sendmail("s@client.test", to, f"Subject: {name}\r\n\r\nx\r\n")
                    (others if refused else acknowledged).append(name)
            except (OSError, smtplib.SMTPException):
                others.append(name)  # it may have arrived

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    [thread.start() for thread in threads]
    time.sleep(seconds / 3)
    kill()
    [thread.join() for thread in threads]
    return acknowledged, others


def stored(tree):
    """The messages in the mailbox that all are sent to, by path; None while a mount of GlusterFS is not connected to enough
    replicas to answer, as after one was slow."""
    try:
        return {path: path.read_text() for path in messages(tree / "mail/here.test/all")}
    except OSError as e:
        if e.errno != errno.ENOTCONN:
            raise
        return None


def several(case, trees, what, seconds, kill=lambda: None):
    """Three instances, of which one is killed, and what `kill` ends."""
    with instances(case, trees) as (children, ports), haproxy(case, ports) as port:
        if not listens(port):
            return check("HAProxy starts", False, (case / "haproxy.log").read_text()[-500:])
        acknowledged, others = load(port, seconds, lambda: (children[0].kill(), kill()))
    texts = wait_for(lambda: stored(trees[-1])) or {}
    found = collections.Counter(text.split("Subject: ")[1].split("\n")[0] for text in texts.values())
    lost = [name for name in acknowledged if found[name] == 0]
    doubled = [name for name, times in found.items() if times > 1]
    names = [path.name for path in texts]
    writers = {host for host in range(INSTANCES) if any(f"mx{host}.here.test" in name for name in names)}
    good = not lost and not doubled and len(acknowledged) > 50 and writers == {0, 1, 2}
    figures = f"{len(acknowledged)} acknowledged, {len(others)} without a 250, {len(lost)} lost, {len(doubled)} doubled, written by {sorted(writers)}"
    check(f"{what}: nothing acknowledged is lost, nothing doubled", good, figures)


def one_machine(home):
    case = home / "several"
    (case / "mail").mkdir(parents=True)
    several(case, [case] * INSTANCES, "HAProxy with PROXY v2, three instances, one killed", 6)


# --- GlusterFS -----------------------------------------------------------------------------------


def brick(case, number):
    """The server of one replica, without glusterd: its process and port."""
    store, port, config = case / f"brick{number}", free_port(), case / f"brick{number}.vol"
    store.mkdir()
    config.write_text(f"""
volume posix
  type storage/posix
  option directory {store}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume {store}
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.{store}.allow 127.0.0.1
  subvolumes {store}
end-volume
""")
    command = [find("glusterfsd"), "-N", "-f", config, "-l", case / f"brick{number}.log"]
    return subprocess.Popen(command), port


def volume(case, ports):
    """The client's configuration. With the quorum a write that only one replica has is an error: without it, a mount that has
    lost sight of the others would go on, and its mail would be gone with that replica."""
    remote = "".join(f"""
volume client{n}
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume {case}/brick{n}
  option ping-timeout 5
end-volume
""" for n, port in enumerate(ports))
    names = [f"client{n}" for n in range(len(ports))]
    (case / "client.vol").write_text(f"""{remote}
volume replicate
  type cluster/replicate
  option quorum-type auto
  option afr-pending-xattr {','.join(names)}
  subvolumes {' '.join(names)}
end-volume
""")
    return case / "client.vol"


def mounted(case, config, number):
    """A mount, as each machine has one: its directory and process; None where it cannot be."""
    tree = case / f"mount{number}"
    tree.mkdir()
    child = subprocess.Popen([find("glusterfs"), "-N", "-f", config, "-l", case / f"mount{number}.log", tree])
    if wait_for(lambda: os.path.ismount(tree) or child.poll() is not None, 20) and os.path.ismount(tree):
        return tree, child
    child.kill()
    child.wait()
    return None


def reached(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True


def gluster(home):
    case = home / "gluster"
    case.mkdir()
    bricks = [brick(case, n) for n in range(REPLICAS)]
    children, trees = [child for child, _ in bricks], []
    try:
        if not all(wait_for(lambda port=port: reached(port), 20) for _, port in bricks):
            return skip("GlusterFS", "its bricks do not start: " + (case / "brick0.log").read_text()[-300:])
        config = volume(case, [port for _, port in bricks])
        for number in range(INSTANCES):
            if not (made := mounted(case, config, number)):
                return skip("GlusterFS", "no mount: " + (case / f"mount{number}.log").read_text()[-300:])
            trees.append(made[0])
            children.append(made[1])
        # A replica that is asked for a directory by one mount while another makes it can give it a second identity, and then
        # answers EIO for it (seen with 10.3: "Gfid mismatch"): a mailbox is made before several mounts use it.
        for user in ["all", *(f"u{session}" for session in range(CLIENTS))]:
            for part in ("tmp", "new", "cur"):
                (trees[0] / "mail/here.test" / user / part).mkdir(parents=True)
        what = "GlusterFS with three replicas, three mounts, an instance and a replica killed"
        several(case, trees, what, 15, bricks[0][0].kill)
    finally:
        for tree in trees:
            subprocess.run(["umount", "--lazy", tree], check=False)
        for child in children:
            child.kill()
            child.wait()


def main():
    with scratch("machines") as home:
        if why := need("haproxy"):
            skip("HAProxy", why)
        else:
            one_machine(home)
        root = None if os.geteuid() == 0 and os.path.exists("/dev/fuse") else "needs root and /dev/fuse"
        if why := root or need("haproxy", "glusterfs", "glusterfsd"):
            skip("GlusterFS", why)
        else:
            gluster(home)
    interop.finish()


if __name__ == "__main__":
    main()
