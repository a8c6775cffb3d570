#!/usr/bin/env python3
"""The metrics listener with its readers: `promtool check metrics`, a Prometheus that scrapes it and evaluates each
expression of the dashboard, and the strict parser of Prometheus's Python client. `metrics.py MAILSLOT`. What is not
installed is printed and skipped."""

import json
import re
import smtplib
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import interop
from interop import REPO, check, find, free_port, mailslot, need, port_of, scratch, skip, wait_for

MESSAGES = 20


def work(port):
    """Messages, refusals, a wrong login and a right one."""
    for number in range(MESSAGES):
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("s@client.test", ["alice@here.test"], f"Subject: {number}\r\n\r\nx\r\n")
            client.mail("s@client.test")
            client.rcpt("nobody@here.test")
    for password in ("wrong", "secret"):
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.starttls(context=ssl._create_unverified_context())
            client.ehlo()
            client.user, client.password = "alice", password
            try:
                client.auth("PLAIN", client.auth_plain)
            except smtplib.SMTPAuthenticationError:
                pass
            if password == "secret":
                client.sendmail("s@client.test", ["u@elsewhere.test"], "Subject: x\r\n\r\nx\r\n")


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def promtool(page):
    done = subprocess.run([find("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, timeout=30)
    check("promtool check metrics finds nothing", done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr)


def strict(page):
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    except ImportError:
        return skip("the Python client's parser", "no prometheus_client here")
    families = list(text_string_to_metric_families(page))
    check("the Python client's parser takes it", len(families) == 13, f"{len(families)} families")


def expressions():
    dashboard = json.loads((REPO / "contrib/grafana/mailslot.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def prometheus(home, port, page):
    case = home / "prometheus"
    case.mkdir()
    own = free_port()
    (case / "prometheus.yml").write_text(f"""
global:
  scrape_interval: 500ms
  scrape_timeout: 400ms
scrape_configs:
  - job_name: mailslot
    static_configs:
      - targets: [127.0.0.1:{port}]
""")
    command = [find("prometheus"), f"--config.file={case}/prometheus.yml", f"--storage.tsdb.path={case}/data", f"--web.listen-address=127.0.0.1:{own}"]
    with open(case / "log", "wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=case)

    def ask(expression):
        query = urllib.parse.urlencode({"query": expression})
        try:
            answer = json.loads(fetch(f"http://127.0.0.1:{own}/api/v1/query?{query}")[1])
        except (OSError, urllib.error.HTTPError):
            return None
        return answer["data"]["result"] if answer["status"] == "success" else None

    try:
        found = wait_for(lambda: ask('up{job="mailslot"} == 1') and ask("rate(mailslot_messages_total[1m])"), 60)
        check("Prometheus scrapes it", bool(found), "" if found else (case / "log").read_text()[-500:])
        value = {row["metric"].get("service"): row["value"][1] for row in ask("mailslot_messages_total") or []}
        check("Prometheus has the messages", value == {"smtp": str(MESSAGES + 1)}, value)
        names = set(re.findall(r"^(mailslot_\w+)", page, re.M))
        missing = [name for name in sorted(names) if not ask(name)]
        check(f"Prometheus has each of {len(names)} names", not missing, missing or "")
        empty = [expression for expression in expressions() if not ask(expression)]
        check(f"each of {len(expressions())} expressions of the dashboard has an answer", not empty, empty or "")
    finally:
        child.terminate()
        child.wait()


def main():
    with scratch("metrics") as home:
        (home / "users").write_text("alice:{PLAIN}secret\n")
        tls = ["--tls-cert", str(REPO / "tests/tls/cert.pem"), "--tls-key", str(REPO / "tests/tls/key.pem")]
        (home / "mail").mkdir()
        listen = ["--listen", "smtp://127.0.0.1:0", "--listen", "metrics://127.0.0.1:0"]
        with mailslot(home, *listen, "--users", "users", "--domain", "here.test", *tls, "--relay", f"smtp://127.0.0.1:{free_port()}") as (_, urls):
            work(port_of(urls[0]))
            kind, page = fetch(f"http://127.0.0.1:{port_of(urls[1])}/metrics")
            check("the media type is OpenMetrics'", kind == "application/openmetrics-text; version=1.0.0", kind)
            if why := need("promtool"):
                skip("promtool check metrics", why)
            else:
                promtool(page)
            strict(page)
            if why := need("prometheus"):
                skip("Prometheus", why)
            else:
                prometheus(home, port_of(urls[1]), page)
    interop.finish()


if __name__ == "__main__":
    main()
