"""Claims about doctor.py's judges: what was read becomes a verdict and the line that mends it.
It refuses to look at this host; tests/lab/test_doctor.py looks at one of the lab."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from punchd import doctor
from punchd.doctor import BAD, CHECKS, OK, WARN, Around, Finding
from punchd.firewall import PUNCH_PORTS, parse
from punchd.firewall_list import Rules, Unseen
from punchd.words.addresses import PUNCH_PORTS as THE_DAEMONS

PING = {"version": "0.1.0", "techniques": ["udp"], "missing": [], "descriptors_max": 4096}
LACK = {"capability": "rules", "reason": "CAP_NET_ADMIN is missing", "grant": "run punchd as root"}


def test_punch_range_is_the_daemons() -> None:
    """The doctor imports no floor, so the range is written down twice."""
    assert (THE_DAEMONS.low, THE_DAEMONS.high) == PUNCH_PORTS


def verdicts(findings: list[Finding]) -> list[str]:
    return [finding.verdict for finding in findings]


@pytest.mark.parametrize(
    ("judge", "seen", "expected"),
    [
        (doctor.judge_daemon, (PING, ""), [OK]),
        (doctor.judge_daemon, (None, "no punchd"), [WARN]),
        (doctor.judge_daemon, (PING | {"missing": [LACK]}, ""), [BAD]),
        (doctor.judge_capabilities, frozenset({"CAP_NET_ADMIN", "CAP_NET_RAW"}), [OK]),
        (doctor.judge_capabilities, frozenset({"CAP_NET_RAW"}), [WARN]),
        (doctor.judge_queue, True, [OK]),
        (doctor.judge_queue, False, [WARN]),
        (doctor.judge_owner_tables, ("6.1.0-13-amd64", True, ("ip punchd-7",)), [OK]),
        (doctor.judge_owner_tables, ("6.1.0-13-amd64", None, ()), [OK]),
        (doctor.judge_owner_tables, ("5.10.0-8", None, ()), [BAD]),
        (doctor.judge_owner_tables, ("6.1.0", False, ()), [BAD]),
        (doctor.judge_rp_filter, {"eth0": 1}, [OK]),
        (doctor.judge_rp_filter, {"eth0": 1, "eth1": 1}, [WARN]),
        (doctor.judge_rp_filter, {"eth0": 2, "eth1": 0}, [OK]),
        (doctor.judge_conntrack, None, [OK]),
        (doctor.judge_conntrack, (False, 0, 65536, 0), [OK]),
        (doctor.judge_conntrack, (True, 100, 65536, 1), [OK]),
        (doctor.judge_conntrack, (True, 50_000, 65536, 1), [WARN]),
        (doctor.judge_conntrack, (True, 65_500, 65536, 1), [BAD]),
        (doctor.judge_conntrack, (True, 100, 65536, 0), [OK, WARN]),
        (doctor.judge_ports, (32768, 60999, ""), [OK]),
        (doctor.judge_ports, (1024, 60999, ""), [WARN]),
        (doctor.judge_ports, (1024, 60999, "8080,21000-31999"), [OK]),
        (doctor.judge_ports, (1024, 25000, "20000-26000"), [OK]),
        (doctor.judge_ports, (1024, 60999, "21000-30000"), [WARN]),
        (doctor.judge_limits, ("punchd", 65536), [OK]),
        (doctor.judge_limits, ("you", 256), [WARN]),
    ],
)
def test_each_reading_has_its_verdict(judge: Callable[[Any], list[Finding]], seen: Any, expected: list[str]) -> None:
    """A doctor that finds everything well, or everything ill, is none."""
    findings = judge(seen)
    assert expected == verdicts(findings)
    assert all(bool(finding.mend) == (finding.verdict != OK) for finding in findings)


def test_ports_keep_what_was_reserved_before() -> None:
    """The line replaces the whole list: what others have reserved must be in it."""
    (finding,) = doctor.judge_ports((1024, 60999, "8080,9148"))
    assert "sudo sysctl -w net.ipv4.ip_local_reserved_ports=8080,9148,21000-31999" == finding.mend


def test_rules_are_named_with_what_they_cost() -> None:
    """Table, chain, text and handle, what is dropped, and the consequence."""
    listing = (
        "table inet t { # handle 1\n\tchain out { # handle 1\n"
        "\t\ttype filter hook output priority filter; policy accept;\n"
        "\t\tudp sport 1024-65535 drop # handle 4\n\t}\n}\n"
    )
    (finding,) = doctor.judge_rules(Rules((parse(listing),)))
    wanted = "table inet t, chain out: udp sport 1024-65535 drop (handle 4); it drops datagrams out: udp does not work"
    assert Finding("rules", wanted, BAD, "sudo nft insert rule inet t out udp sport 21000-31999 accept") == finding


def test_what_was_not_seen_is_not_called_well() -> None:
    """Without privileges rules can't be listed: that is a line with what grants it, not a clean bill."""
    (finding,) = doctor.judge_rules(Rules((), (Unseen("nftables", "Operation not permitted", "sudo punchctl doctor"),)))
    assert ("rules: nftables", WARN, "sudo punchctl doctor") == (finding.subject, finding.verdict, finding.mend)
    assert "not looked at" in finding.found


def test_every_reader_reads_this_kernel() -> None:
    """Paths of /proc are strings that no type checker reads. Nothing is asserted about what they say."""
    for daemon in (None, PING):
        for check in CHECKS:
            assert check.judge(check.read(Around(daemon, "no punchd", Rules())))


def test_findings_are_aligned_with_their_mend_below() -> None:
    """Output is an interface; brackets in a rule's text are no markup."""
    out = io.StringIO()
    doctor.show(
        [Finding("ports", "well [ok]"), Finding("rules", "ill", BAD, "sudo mend")],
        Console(file=out, width=60, color_system=None),
    )
    assert ["ok   ports  well [ok]", "bad  rules  ill", "            sudo mend"] == [
        line.rstrip() for line in out.getvalue().splitlines()
    ]
