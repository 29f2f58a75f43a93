"""The doctor on a host of the lab: well hosts are called well, each fault is named, and its mend mends it.

It refuses to touch the rules of this machine: everything happens in a host's namespace.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from running import NOBODY, Daemon

from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("ring", "raw", "repair", "queue", "rules")]

PUNCHCTL = [sys.executable, "-c", "from punchd.ctl import main; main()"]
AS_NOBODY = [
    sys.executable, "-c",
    f"import os; from punchd.ctl import main; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); main()",
]  # fmt: skip
IN, OUT = "type filter hook input priority 0", "type filter hook output priority 0"


@pytest.fixture(name="host")
def _host() -> Iterator[Namespace]:
    """A host without a rule of its own."""
    with Lab("open", "open", echo=None) as lab:
        yield lab.a


def ailing(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [finding for finding in findings if finding["verdict"] != "ok"]


def doctor(host: Namespace, path: str = "/nonexistent") -> list[dict[str, Any]]:
    """Its findings as a script reads them."""
    said = host.run([*PUNCHCTL, "doctor", "--json", "--socket", path], check=False)
    findings: list[dict[str, Any]] = json.loads(said)["findings"]
    return findings


def test_well_host_is_called_well(host: Namespace) -> None:
    """A doctor who always finds something is not asked a second time."""
    with Daemon(host) as daemon:
        assert [] == ailing(doctor(host, daemon.path))
        shown = host.run([*PUNCHCTL, "doctor", "--socket", daemon.path])  # it exits with 0
    assert "none drops what punchd needs" in shown
    assert f"ip punchd-{daemon.pid}" in shown


def test_host_without_a_daemon_is_looked_over_all_the_same(host: Namespace) -> None:
    """Beforehand means before there is a daemon."""
    (finding,) = ailing(doctor(host))
    assert ("daemon", "sudo punchd") == (finding["subject"], finding["mend"])


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (f"chain c {{ {OUT}; tcp dport 20000-40000 drop; }}", ["tcp dport 20000-40000 drop"]),
        (f"chain c {{ {OUT}; policy drop; tcp dport 443 accept; }}", ["policy drop"]),
        (f"chain c {{ {IN}; ct state invalid counter drop; }}", ["ct state invalid counter packets 0 bytes 0 drop"]),
        (f"chain c {{ {IN}; tcp flags & (fin|syn|rst|ack) == syn drop; }}", ["tcp flags syn / fin,syn,rst,ack drop"]),
        (f"chain c {{ {IN}; ct state new drop; }}", ["ct state new drop"]),
        (f"chain s {{ drop; }}; chain c {{ {IN}; ct state vmap {{ established : accept, new : jump s }}; }}",
         ["chain s: drop"]),
        ("chain c { type filter hook prerouting priority -300; udp dport 21000-31999 drop; }",
         ["udp dport 21000-31999 drop"]),
        (f"chain c {{ {OUT}; meta mark 7 drop; }}", ["meta mark 0x00000007 drop (handle 2); it may drop"]),
    ],
)  # fmt: skip
def test_rule_is_named_and_its_mend_mends_it(host: Namespace, rules: str, named: list[str]) -> None:
    """The very rule as nft prints it, and a line that a person can copy."""
    host.nft(f"table ip t {{ {rules}; }}")
    with Daemon(host) as daemon:
        findings = ailing(doctor(host, daemon.path))
        assert findings
        assert {"rules"} == {finding["subject"] for finding in findings}
        for finding in findings:
            assert "table ip t, chain" in finding["found"]
            assert any(text in finding["found"] for text in named)
        for finding in findings:
            host.run(finding["mend"].removeprefix("sudo ").split())
        assert [] == ailing(doctor(host, daemon.path))


def test_iptables_rules_of_both_kinds_are_named(host: Namespace) -> None:
    """iptables-legacy has tables of its own, which nft does not list."""
    for tool in ("iptables-nft", "iptables-legacy"):
        host.run([tool, "-A", "OUTPUT", "-p", "udp", "-j", "DROP"])
        with Daemon(host) as daemon:
            (finding,) = ailing(doctor(host, daemon.path))
            assert "table ip filter, chain OUTPUT" in finding["found"]
            assert "drops datagrams out" in finding["found"]
            host.run(finding["mend"].removeprefix("sudo ").split())
            assert [] == ailing(doctor(host, daemon.path))
        host.run([tool, "-F", "OUTPUT"])


def test_settings_of_the_kernel_are_judged_and_mended(host: Namespace) -> None:
    """Each line that it prints is run, and it is content."""
    host.sysctl("net.ipv4.ip_local_port_range", "16384 60999")
    host.nft(f"table ip t {{ chain c {{ {IN}; ct state established accept; }}; }}")
    host.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")
    with Daemon(host, files=512) as daemon:
        findings = ailing(doctor(host, daemon.path))
        assert ["conntrack: loose", "ports", "open files"] == [finding["subject"] for finding in findings]
        for finding in findings[:-1]:
            host.run(finding["mend"].removeprefix("sudo ").split())
        assert ["open files"] == [finding["subject"] for finding in ailing(doctor(host, daemon.path))]


def test_without_privileges_it_says_what_it_could_not_see(host: Namespace) -> None:
    """Not seen is not well; and it names the line that grants it."""
    said = host.run([*AS_NOBODY, "doctor", "--json", "--socket", "/nonexistent"])
    findings = {finding["subject"]: finding for finding in json.loads(said)["findings"]}
    assert "Operation not permitted" in findings["rules: nftables"]["found"]
    assert findings["rules: nftables"]["mend"].startswith("sudo punchctl doctor")
    assert "warn" == findings["your capabilities"]["verdict"]
    assert "ok" == findings["ports"]["verdict"]


def test_caller_whom_the_daemon_turns_away_is_told_all_the_same(host: Namespace) -> None:
    """A user who may not ask the daemon may still look at the host."""
    with Daemon(host) as daemon:
        host.run(["chmod", "0666", daemon.path])
        said = host.run([*AS_NOBODY, "doctor", "--json", "--socket", daemon.path], check=False)
    findings = {finding["subject"]: finding for finding in json.loads(said)["findings"]}
    assert "not-permitted" in findings["daemon"]["found"]
    assert "ok" == findings["ports"]["verdict"]
