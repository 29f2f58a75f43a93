"""`punchctl doctor`: looks this host over before anybody punches, and gives for each fault the line that mends it.
It refuses to change anything and to send a packet; what it may not look at, it names with the line that grants it.

Each row of CHECKS is a reader, which asks the host for one thing, and a judge, which is given what the reader found.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from punchd.client import NoDaemon, PunchFailed, connect_blocking
from punchd.firewall import PUNCH_PORTS, Packet, is_own
from punchd.firewall_list import Rules, look

OK, WARN, BAD = "ok", "warn", "bad"

_PIPED_WIDTH = 200
_COLOURS = {OK: "green", WARN: "yellow", BAD: "red"}
_SYS = Path("/proc/sys/net")
_LOW, _HIGH = PUNCH_PORTS
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # linux/capability.h
_FILES_LEAST = 1024
"""`auto` takes a descriptor per technique, and a few hundred attempts at once are nothing unusual."""
_OWNER_SINCE = (5, 12)  # NFT_TABLE_F_OWNER
_GRANT = "sudo punchd, or AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN in its unit"
_SUDO = "sudo punchctl doctor"

# What must pass, and how bad it is if it does not. tcp-direct alone needs new connections in; segments of no known
# connection matter to the techniques that prime, where this host tracks connections itself.
_SYN, _ACK, _SYN_ACK = frozenset({"syn"}), frozenset({"ack"}), frozenset({"syn", "ack"})
PACKETS: tuple[tuple[Packet, str, str], ...] = (
    (Packet(what="SYNs out", going="out", flags=_SYN), BAD, "no TCP technique works"),
    (Packet(what="bare ACKs out", going="out", flags=_ACK), BAD, "tcp-midstream does not work"),
    (Packet(what="datagrams out", going="out", protocol="udp"), BAD, "udp does not work"),
    (Packet(what="answers out", going="out", flags=_SYN_ACK, state="established"), BAD, "no TCP technique works"),
    (Packet(what="INVALID out", going="out", flags=_ACK, state="invalid"), WARN,
     "tcp-midstream, tcp-syni, tcp-nutss may fail"),
    (Packet(what="SYNs in, after ours", going="in", flags=_SYN, state="established"), BAD, "tcp-simopen fails"),
    (Packet(what="SYN-ACKs in", going="in", flags=_SYN_ACK, state="established"), BAD, "no TCP technique works"),
    (Packet(what="ACKs in", going="in", flags=_ACK, state="established"), BAD, "no TCP technique works"),
    (Packet(what="datagrams in", going="in", protocol="udp", state="established"), BAD, "udp does not work"),
    (Packet(what="new SYNs in", going="in", flags=_SYN), WARN, "tcp-direct fails towards this host"),
    (Packet(what="INVALID in", going="in", flags=_ACK, state="invalid"), WARN, "tcp-midstream, tcp-syni may fail"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, how it is, and the line that mends it."""

    subject: str
    found: str
    verdict: str = OK
    mend: str = ""


class Unreadable(Exception):
    """What may not be looked at, or is not there to be looked at."""


@dataclass(frozen=True, slots=True)
class Around:
    """What several checks ask for: what the daemon says of itself (None: no daemon), and the rules."""

    daemon: dict[str, Any] | None
    no_daemon: str
    rules: Rules


@click.command()
@click.option("--socket", "path", metavar="PATH", help="punchd's socket [PUNCHD_SOCKET]")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
def doctor(path: str | None, as_json: bool) -> None:
    """What on this host stands in the way, and what mends it."""
    findings = examine(path)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}))
    else:
        show(findings)
    if any(finding.verdict == BAD for finding in findings):
        sys.exit(1)


def examine(path: str | None) -> list[Finding]:
    """All findings, in the order of CHECKS."""
    try:
        with connect_blocking(path) as asked:
            around = Around(asked.ping(), "", look())
    except (NoDaemon, PunchFailed) as error:
        around = Around(None, str(error), look())
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            seen = check.read(around)
        except (OSError, Unreadable) as error:
            findings.append(Finding(check.subject, f"not looked at: {error}", WARN, _SUDO))
        else:
            findings += check.judge(seen)
    return findings


def show(findings: Iterable[Finding], console: Console | None = None) -> None:
    """Aligned, each mend below what it mends."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict}[/{colour}]", finding.subject, _plain(finding.found))
        if finding.mend:
            table.add_row("", "", f"[bold]{_plain(finding.mend)}[/bold]")
    console.print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


# -- readers and judges, in the order of CHECKS ------------------------------------------------------------------


def read_daemon(around: Around) -> tuple[dict[str, Any] | None, str]:
    return around.daemon, around.no_daemon


def judge_daemon(seen: tuple[dict[str, Any] | None, str]) -> list[Finding]:
    """What the daemon itself misses, in its own words."""
    said, reason = seen
    if said is None:
        return [Finding("daemon", f"none answers: {reason}", WARN, "sudo punchd")]
    lacks = [
        Finding(f"daemon: {lack['capability']}", lack["reason"], BAD, lack["grant"]) for lack in said["missing"]
    ]  # fmt: skip
    return lacks or [Finding("daemon", f"punchd {said['version']}, all techniques: {', '.join(said['techniques'])}")]


def read_capabilities(around: Around) -> frozenset[str]:
    found = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    bits = int(found[1], 16) if found else 0
    return frozenset(name for name, bit in _CAPABILITIES.items() if bits >> bit & 1)


def judge_capabilities(held: frozenset[str]) -> list[Finding]:
    """The caller's own: a punchd started by this user has no others, and without them rules can't be listed."""
    lacking = sorted(_CAPABILITIES.keys() - held)
    if lacking:
        return [Finding("your capabilities", f"without {', '.join(lacking)}", WARN, f"{_SUDO}; {_GRANT}")]
    return [Finding("your capabilities", ", ".join(sorted(held)))]


def read_queue(around: Around) -> bool:
    if around.daemon is not None:
        return all(lack["capability"] != "queue" for lack in around.daemon["missing"])
    return Path("/proc/self/net/netfilter/nfnetlink_queue").exists()


def judge_queue(there: bool) -> list[Finding]:
    """Without a daemon that has one: whether the kernel's part is loaded."""
    if there:
        return [Finding("NFQUEUE", "there")]
    found = "not there: time-exceeded is kept from sockets by IP_MINTTL alone"
    return [Finding("NFQUEUE", found, WARN, "sudo modprobe nfnetlink_queue")]


def read_owner_tables(around: Around) -> tuple[str, bool | None, tuple[str, ...]]:
    daemon = around.daemon
    has = None if daemon is None else all(lack["capability"] != "rules" for lack in daemon["missing"])
    return os.uname().release, has, tuple(table for table in around.rules.tables if is_own(table))


def judge_owner_tables(seen: tuple[str, bool | None, tuple[str, ...]]) -> list[Finding]:
    """The table that holds back our own kernel's resets goes with its owner."""
    release, has, tables = seen
    version = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if has is False or version < _OWNER_SINCE:
        return [
            Finding("owner tables", f"punchd has none, Linux {release}", BAD, "Linux 5.12 with nf_tables; " + _GRANT)
        ]
    return [Finding("owner tables", ", ".join(tables) if tables else f"Linux {release} knows them")]


def read_rp_filter(around: Around) -> dict[str, int]:
    every = int(_sysctl("ipv4/conf/all/rp_filter"))
    names = [entry.name for entry in (_SYS / "ipv4/conf").iterdir() if entry.name not in ("all", "default", "lo")]
    return {name: max(every, int(_sysctl(f"ipv4/conf/{name}/rp_filter"))) for name in sorted(names)}


def judge_rp_filter(modes: dict[str, int]) -> list[Finding]:
    """Strict (RFC 3704) drops what comes in another way than its answer would leave; with one way there is no other."""
    strict = [name for name, mode in modes.items() if mode == 1]
    if strict and len(modes) > 1:
        found = f"strict on {', '.join(strict)}: drops what comes in another way than its answer leaves"
        return [Finding("rp_filter", found, WARN, "sudo sysctl -w net.ipv4.conf.all.rp_filter=2")]
    return [Finding("rp_filter", "strict, on the only interface" if strict else "not strict")]


def read_conntrack(around: Around) -> tuple[bool, int, int, int] | None:
    if not (_SYS / "netfilter/nf_conntrack_count").exists():
        return None
    count, most, loose = (
        int(_sysctl(f"netfilter/nf_conntrack_{name}")) for name in ("count", "max", "tcp_loose")
    )  # fmt: skip
    return around.rules.tracks or count > 0, count, most, loose


def judge_conntrack(seen: tuple[bool, int, int, int] | None) -> list[Finding]:
    """A full table drops what is new; without loose a connection that is picked up in its middle is INVALID."""
    if seen is None or not seen[0]:
        return [Finding("conntrack", "this host tracks no connections")]
    _, count, most, loose = seen
    found = f"this host tracks: {count} of {most} entries"
    verdict = BAD if count >= 0.95 * most else WARN if count >= 0.75 * most else OK
    mend = "" if verdict == OK else f"sudo sysctl -w net.netfilter.nf_conntrack_max={2 * most}"
    findings = [Finding("conntrack", found, verdict, mend)]
    if not loose:
        findings.append(
            Finding("conntrack: loose", "off: tcp-midstream's segments are INVALID on this host", WARN,
                    "sudo sysctl -w net.netfilter.nf_conntrack_tcp_loose=1")
        )  # fmt: skip
    return findings


def read_rules(around: Around) -> Rules:
    return around.rules


def judge_rules(rules: Rules) -> list[Finding]:
    """One line per kind of packet that a rule drops, and one for what was not seen."""
    findings = [
        Finding(f"rules: {one.what}", f"not looked at: {one.reason}", WARN, one.grant) for one in rules.unseen
    ]  # fmt: skip
    for packet, severity, consequence in PACKETS:
        if (drop := rules.dropped(packet)) is not None:
            how = "drops" if drop[0].sure else "may drop"
            verdict = severity if drop[0].sure else WARN
            found = f"{drop[0].rule}; it {how} {packet.what}: {consequence}"
            findings.append(Finding("rules", found, verdict, f"sudo {drop[1]}"))
    passed = f"none drops what punchd needs ({sum(len(one.chains) for one in rules.rulesets)} chains read)"
    return findings or [Finding("rules", passed)]


def read_ports(around: Around) -> tuple[int, int, str]:
    low, high = _sysctl("ipv4/ip_local_port_range").split()
    return int(low), int(high), _sysctl("ipv4/ip_local_reserved_ports")


def judge_ports(seen: tuple[int, int, str]) -> list[Finding]:
    """Ephemeral ports go to any program that connects; a port that is taken so is lost for a punch."""
    low, high, reserved = seen
    if high < _LOW or low > _HIGH or _covers(reserved, max(low, _LOW), min(high, _HIGH)):
        return [Finding("ports", f"the kernel gives out none of {_LOW}-{_HIGH} ({low}-{high})")]
    both = ",".join(filter(None, (reserved, f"{_LOW}-{_HIGH}")))
    found = f"the kernel gives out {low}-{high}, which overlaps the punch range {_LOW}-{_HIGH}"
    return [Finding("ports", found, WARN, f"sudo sysctl -w net.ipv4.ip_local_reserved_ports={both}")]


def _covers(reserved: str, low: int, high: int) -> bool:
    """The kernel merges neighbouring ranges when it prints them."""
    ranges = [part.partition("-") for part in reserved.split(",") if part]
    return any(int(first) <= low and high <= int(last or first) for first, _, last in ranges)


def read_limits(around: Around) -> tuple[str, int]:
    if around.daemon is not None and "descriptors_max" in around.daemon:
        return "punchd", int(around.daemon["descriptors_max"])
    return "you", resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def judge_limits(seen: tuple[str, int]) -> list[Finding]:
    """The soft limit of whoever runs the daemon."""
    who, most = seen
    if most < _FILES_LEAST:
        found = f"{who} may open {most} files: about {most // 6} attempts at once"
        return [Finding("open files", found, WARN, "ulimit -n 65536, or LimitNOFILE=65536 in punchd's unit")]
    return [Finding("open files", f"{who} may open {most}")]


def _sysctl(name: str) -> str:
    return (_SYS / name).read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True)
class Check:
    """A subject, how to look at it, and how to judge what was seen."""

    subject: str
    read: Callable[[Around], Any]
    judge: Callable[[Any], list[Finding]]


CHECKS: tuple[Check, ...] = (
    Check("daemon", read_daemon, judge_daemon),
    Check("your capabilities", read_capabilities, judge_capabilities),
    Check("NFQUEUE", read_queue, judge_queue),
    Check("owner tables", read_owner_tables, judge_owner_tables),
    Check("rp_filter", read_rp_filter, judge_rp_filter),
    Check("conntrack", read_conntrack, judge_conntrack),
    Check("rules", read_rules, judge_rules),
    Check("ports", read_ports, judge_ports),
    Check("open files", read_limits, judge_limits),
)
