"""`punchctl netcheck`: how this host looks from outside, for a person.
It refuses to measure: punchd does that, and its raw data stand beside every verdict.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table

from punchd.client import PunchFailed, connect_blocking

_STUN_PORT = 3478
_PIPED_WIDTH = 160
_NAMES = {"tcp": "TCP", "udp": "UDP"}
_MAPPINGS = {
    "endpoint-independent": "one public endpoint towards all peers",
    "address-dependent": "another public endpoint towards each peer's address",
    "address-and-port-dependent": "another public endpoint towards each peer",
    "unknown": "it takes a server with two addresses, or two servers",
}
_FILTERINGS = {
    "endpoint-independent": "lets anybody in once the port is open",
    "address-dependent": "lets in only addresses that were sent to",
    "address-and-port-dependent": "lets in only endpoints that were sent to",
    "unknown": "no server could test it",
}
_ALLOCATIONS = {
    "preserving": "ports are kept",
    "sequential": "ports advance by {step}",
    "random": "ports are random",
    "unknown": "too few mappings were seen",
}

_AXES: dict[str, dict[bool | None, str]] = {
    "outlives_icmp": {
        True: "its mappings outlive ICMP errors",
        False: "an ICMP error ends a mapping",
        None: "no server could test whether mappings outlive ICMP errors",
    },
    "drops_strays": {
        True: "what nobody asked for is dropped in silence",
        False: "what nobody asked for is answered by an error, or punished",
        None: "no server could tell what becomes of what nobody asked for",
    },
    "forgives": {
        True: "who has sent such a stray is heard all the same",
        False: "who sends a stray is blocked for a while",
        None: "no server could test whether who sends a stray is heard afterwards",
    },
}
_ANSWERS = {True: "yes", False: "no", None: "unknown"}


@click.command()
@click.option("--socket", "path", metavar="PATH", help="punchd's socket [PUNCHD_SOCKET]")
@click.option("--json", "as_json", is_flag=True, help="print the answer as JSON")
@click.option("--server", "servers", multiple=True, metavar="HOST[:PORT]", help="a STUN server; may be repeated")
@click.option("--transport", type=click.Choice(["tcp", "udp", "both"]), default="both", show_default=True)
@click.option("--timeout-ms", type=int, help="how long servers may take")
@click.option("--peer", metavar="DESCRIPTOR", help="find the largest TTL that stays short of this peer's NATs, too")
def netcheck(
    path: str | None,
    as_json: bool,
    servers: tuple[str, ...],
    transport: Literal["tcp", "udp", "both"],
    timeout_ms: int | None,
    peer: str | None,
) -> None:
    """How this host looks from outside: its NAT, over UDP and over TCP."""
    places = [_resolve(server) for server in servers]
    with connect_blocking(path) as daemon:
        try:
            found = daemon.endpoint(servers=places or None, transport=transport, timeout_ms=timeout_ms, peer=peer)
        except PunchFailed as failed:
            if failed.code == "no-answer" and not as_json:
                show(failed.cause)
            raise
    if as_json:
        click.echo(json.dumps({"descriptor": found.descriptor, "report": found.report}))
        return
    show(found.report)
    click.echo(f"\ndescriptor  {found.descriptor}")


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """UDP and TCP apart, the verdict above what it rests on."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    if "host" in report:
        console.print(f"this host  {report['host']}")
        console.print(_way(report["ttl"]))
        if "peer" in report["ttl"]:
            console.print(_reach(report["ttl"]["peer"]))
    for transport in ("udp", "tcp"):
        if transport in report:
            console.print(f"\n[bold]{_NAMES[transport]}[/bold]")
            console.print(_verdicts(report[transport]))
            console.print(_raw(report[transport]))


def _way(ttl: dict[str, Any]) -> Table:
    """The TTL that clears the own NATs, and who answered at which distance."""
    if ttl["clears"] is None:
        said = f"no router outside of this host's NATs spoke up; it takes {ttl['least']} or more"
    else:
        said = "hops clear all NATs of this host"
    return _hops("hole TTL ", ttl["clears"], said, ttl["hops"])


def _reach(peer: dict[str, Any]) -> Table:
    """The TTL that stays short of the peer's NATs."""
    said = "no router on the way spoke up" if peer["short"] is None else f"hops stay short of {peer['public']}"
    return _hops("peer's   ", peer["short"], said, peer["hops"])


def _hops(name: str, ttl: int | None, said: str, hops: list[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(name, "unknown" if ttl is None else str(ttl), said)
    for hop in hops:
        rtt = "repeated" if hop["rtt_ms"] is None else f"{hop['rtt_ms']} ms"
        table.add_row("", str(hop["ttl"]), f"{hop['sender']}{' (arrived)' if hop['arrived'] else ''}", rtt)
    return table


def _verdicts(face: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    if "public" not in face:
        table.add_row("  blocked", "no server answered")
        return table
    nat = "through a NAT" if face["translated"] else "no NAT: this is the host's own address"
    table.add_row("  public", face["public"], nat)
    table.add_row("  mapping", face["mapping"], _MAPPINGS.get(face["mapping"], ""))
    table.add_row("  filtering", face["filtering"], _FILTERINGS.get(face["filtering"], ""))
    said = _ALLOCATIONS.get(face["allocation"], "").format(step=face["step"])
    table.add_row("  allocation", face["allocation"], said)
    for axis, said_of in _AXES.items():
        table.add_row(f"  {axis.replace('_', ' ')}", _ANSWERS[face[axis]], said_of[face[axis]])
    return table


def _raw(face: dict[str, Any]) -> Table:
    table = Table("server", "this host", "seen as", "round trip", "after", box=None, padding=(0, 2))
    seen = sorted(face["seen"], key=lambda one: one["at_ms"])
    for one in seen:
        rtt = "repeated" if one["rtt_ms"] is None else f"{one['rtt_ms']} ms"
        table.add_row(one["server"], one["local"], one["public"], rtt, f"{one['at_ms'] - seen[0]['at_ms']} ms")
    for one in face["silent"]:
        table.add_row(one["server"], "", one["cause"], "", "")
    return table


def _resolve(server: str) -> str:
    """punchd takes addresses, people have names."""
    host, colon, port = server.rpartition(":") if ":" in server else (server, ":", str(_STUN_PORT))
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        raise click.BadParameter(f"{server}: {error}", param_hint="--server") from None
    return str(found[0][4][0]) + colon + str(found[0][4][1])
