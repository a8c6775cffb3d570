#!/usr/bin/env python3
"""Proxies that name the real client: HAProxy and nginx send PROXY headers, nginx and swaks XCLIENT, and Postfix shows
how XCLIENT should be answered, because it takes XCLIENT and never sends it. The real client always has another loopback
address than the proxy. `proxies.py MAILSLOT`. What is not installed is printed and skipped."""

import contextlib
import http.server
import os
import smtplib
import socket
import ssl
import subprocess
import threading

import interop
from interop import REPO, check, find, free_port, listens, mailslot, messages, need, port_of, scratch, skip, wait_for

CLIENT = "127.0.0.5"
TLS = ["--tls-cert", str(REPO / "tests/tls/cert.pem"), "--tls-key", str(REPO / "tests/tls/key.pem")]
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_mail_module.so"


def port_in(url):
    return port_of(url.split("?")[0])


def submit(port, to, secure=False, login=None):
    """One message from the address of the real client."""
    def tried():
        source = (CLIENT, 0)
        with contextlib.suppress(OSError, smtplib.SMTPServerDisconnected):
            if secure:
                return smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=20, source_address=source, context=ssl._create_unverified_context())
            return smtplib.SMTP("127.0.0.1", port, "client.test", timeout=20, source_address=source)

    with wait_for(tried, 20) as client:
        if login:
            client.login(*login)
        client.sendmail("s@client.test", [f"{to}@here.test"], f"Subject: {to}\r\n\r\nx\r\n")


def named(case, to, words):
    """Whether the message's Received and the log speak of the real client."""
    found = wait_for(lambda: messages(case / "mail/here.test" / to), 20)
    trace = found[0].read_text().split("\n\n")[0] if found else "no message"
    lines = wait_for(lambda: [line for line in (case / "mailslot.log").read_text().splitlines() if f'to="{to}@here.test"' in line], 20) or []
    good = words in trace and len(lines) == 1 and f'client="[{CLIENT}]"' in lines[0]
    return good, "" if good else f"{trace} {lines}"


def haproxy(home):
    case = home / "haproxy"
    case.mkdir()
    (case / "users").write_text("alice:{PLAIN}secret\n")
    listen = ["smtp://127.0.0.1:0?proxy", "lmtp://127.0.0.1:0?proxy", "submissions://127.0.0.1:0?proxy"]
    options = [word for url in listen for word in ("--listen", url)]
    with mailslot(case, *options, "--trust", "127.0.0.1", "--domain", "here.test", "--create", "--users", "users", *TLS) as (_, urls):
        ports, parts = {}, []
        for scheme, url in (("smtp", urls[0]), ("submissions", urls[2])):
            for version in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"):
                port = ports[scheme, version] = free_port()
                parts.append(f"""
listen l{port}
  bind 127.0.0.1:{port}
  unique-id-format %Ts-%rt
  server one 127.0.0.1:{port_in(url)} {version} check check-send-proxy inter 200ms
""")
        (case / "haproxy.cfg").write_text("defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n" + "".join(parts))
        with open(case / "haproxy.log", "wb") as log:
            balancer = subprocess.Popen([find("haproxy"), "-f", case / "haproxy.cfg"], stdout=log, stderr=log)
        try:
            for number, ((scheme, version), port) in enumerate(ports.items()):
                secure = scheme == "submissions"
                submit(port, f"u{number}", secure, ("alice", "secret") if secure else None)
                check(f"HAProxy, {version.split(' ')[0]}{' with extensions' if ' ' in version else ''}, {scheme}", *named(case, f"u{number}", f"from client.test ([{CLIENT}])"))
        except (OSError, smtplib.SMTPException, AttributeError) as error:
            check("HAProxy", False, f"{error!r} {(case / 'haproxy.log').read_text()[-500:]}")
        finally:
            balancer.kill()
            balancer.wait()
    log = (case / "mailslot.log").read_text()
    check("HAProxy's own checks speak for the proxy", 'connection client="[127.0.0.1]"' in log and "PROXY header" not in log, [line for line in log.splitlines() if "PROXY header" in line][:2] or "")


# --- XCLIENT -------------------------------------------------------------------------------------


def swaks(home):
    case = home / "swaks"
    case.mkdir()
    with mailslot(case, "--listen", "smtp://127.0.0.1:0", "--trust", "127.0.0.1", "--auth-header", "--domain", "here.test", "--create") as (_, urls):
        attributes = {"addr": CLIENT, "name": "mail.client.test", "port": "4711", "proto": "ESMTP", "helo": "other.test", "login": "bob", "destaddr": "192.0.2.1", "destport": "25"}
        words = [word for name, value in attributes.items() for word in (f"--xclient-{name}", value)]
        command = ["swaks", "--server", f"127.0.0.1:{port_of(urls[0])}", "--ehlo", "client.test", "-f", "s@client.test", "-t", "u@here.test", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    good, more = named(case, "u", f"from client.test (mail.client.test [{CLIENT}])\n\t(authenticated as bob)")
    check("swaks names its client by XCLIENT", good and done.returncode == 0, more if done.returncode == 0 else done.stdout[-400:])


# Attributes, each on a connection of its own.
XCLIENT = [
    "", "NAME=mail.client.test", "NAME=mail.client.test ADDR=192.0.2.9 PORT=4711 PROTO=ESMTP HELO=a.test LOGIN=bob",
    "NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]", "NAME=[TEMPUNAVAIL]", "ADDR=IPV6:2001:db8::1", "ADDR=192.0.2.9 DESTADDR=192.0.2.1 DESTPORT=25",
    "addr=192.0.2.9 name=a.test", "HELO=a+2Etest", "NAME", "NAME=", "FOO=bar", "ADDR=nonsense", "ADDR=IPV6:192.0.2.9", "PORT=x",
    "PROTO=QMTP", "PROTO=smtp", "NAME=not a.name", "NAME=a)+28.test", "DESTPORT=-1",
]
# One after the other on one connection: who has been handed over has the rights of the client.
IN_TURN = [
    ["NAME=a.test", "ADDR=192.0.2.9"], ["ADDR=192.0.2.9", "NAME=a.test", "ADDR=127.0.0.1"], ["LOGIN=bob", "NAME=a.test"],
    ["ADDR=127.0.0.1", "NAME=a.test"], ["ADDR=[UNAVAILABLE]", "ADDR=127.0.0.1"],
]


def answers(port):
    """The codes of each XCLIENT, then of one in a transaction, and of EHLO after one."""
    codes = []
    for arguments in [*([one] for one in XCLIENT), *IN_TURN]:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("client.test")
            codes.append([client.docmd(f"XCLIENT {argument}".strip())[0] for argument in arguments])
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("s@client.test")
        codes.append(client.docmd("XCLIENT ADDR=192.0.2.9")[0])
        client.rset()
        codes += [client.docmd("XCLIENT ADDR=192.0.2.9")[0], client.docmd("MAIL", "FROM:<s@client.test>")[0], client.ehlo("client.test")[0]]
        codes.append(client.has_extn("xclient"))
    return codes


def postfix(home):
    """The same commands to Postfix's smtpd and to mailslot."""
    case = home / "postfix"
    case.mkdir()
    case.chmod(0o755)
    port = free_port()
    with interop.postfix(case, "error:no mail leaves this test", port, "smtpd_authorized_xclient_hosts = 127.0.0.1\nsmtpd_helo_required = yes\n"):
        listens(port)
        wanted = answers(port)
    with mailslot(case, "--listen", "smtp://127.0.0.1:0", "--trust", "127.0.0.1", "--create") as (_, urls):
        found = answers(port_of(urls[0]))
    differ = [(a, w, f) for a, w, f in zip([*XCLIENT, *IN_TURN, *["in a transaction", "again", "MAIL", "EHLO", "offered"]], wanted, found, strict=True) if w != f]
    check(f"XCLIENT is answered as Postfix does in {len(wanted)} cases", not differ, differ or "")


class Auth(http.server.BaseHTTPRequestHandler):
    """What nginx asks where a client is to go."""
    port = 0

    def do_GET(self):
        self.send_response(200)
        for name, value in (("Auth-Status", "OK"), ("Auth-Server", "127.0.0.1"), ("Auth-Port", str(self.server.backend))):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def nginx(home):
    case = home / "nginx"
    case.mkdir()
    case.chmod(0o755)
    listen = ["--listen", "smtp://127.0.0.1:0", "--listen", "smtp://127.0.0.1:0?proxy"]
    with mailslot(case, *listen, "--trust", "127.0.0.1", "--auth-header", "--domain", "here.test", "--create") as (_, urls):
        for name, url, options, login in (
            ("XCLIENT", urls[0], "xclient on; smtp_auth none;", None),
            ("XCLIENT with a login", urls[0], "xclient on; smtp_auth plain;", ("alice", "any")),
            ("PROXY", urls[1], "xclient off; proxy_protocol on; smtp_auth none;", None),
        ):
            part = case / name.replace(" ", "-")
            part.mkdir()
            asked = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Auth)
            asked.backend = port_in(url)
            threading.Thread(target=asked.serve_forever, daemon=True).start()
            port = free_port()
            (part / "nginx.conf").write_text(f"""
load_module {NGINX_MODULE};
daemon off;
master_process off;
user root;
pid {part}/pid;
error_log {part}/error.log info;
events {{}}
mail {{
  server_name front.test;
  auth_http 127.0.0.1:{asked.server_port}/;
  server {{ listen 127.0.0.1:{port}; protocol smtp; {options} }}
}}
""")
            child = subprocess.Popen([find("nginx"), "-e", part / "start.log", "-p", part, "-c", part / "nginx.conf"], stderr=subprocess.DEVNULL)
            to = part.name.lower()
            try:
                submit(port, to, login=login)
                # With PROXY it says its own name to the server.
                helo = "front.test" if name == "PROXY" else "client.test"
                words = f"from {helo} ([{CLIENT}])" + ("\n\t(authenticated as alice)" if login else "")
                check(f"nginx, {name}", *named(case, to, words))
            except (OSError, smtplib.SMTPException, TypeError) as error:
                check(f"nginx, {name}", False, f"{error!r} {(part / 'error.log').read_text()[-800:]}")
            finally:
                child.terminate()
                child.wait()
                asked.shutdown()
                asked.server_close()


def main():
    with scratch("proxies") as home:
        root = None if os.geteuid() == 0 else "needs root"
        module = None if os.path.exists(NGINX_MODULE) else "not installed: nginx's mail module"
        for name, why, run in (
            ("HAProxy", need("haproxy"), haproxy),
            ("swaks with XCLIENT", need("swaks"), swaks),
            ("Postfix's XCLIENT", root or need("postfix", "master"), postfix),
            ("nginx", need("nginx") or module, nginx),
        ):
            skip(name, why) if why else run(home)
    interop.finish()


if __name__ == "__main__":
    main()
