"""The demo: each technique in turn through the networks it is good at, as a table that a person enjoys.

It refuses to flatter: the story comes from a sniffer between the NATs, the bytes from two applications.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .pair import DAEMON, Pair, Result
from .topology import Lab
from .transfer import SIZE
from .wire import Sight, Wire, story

# Technique, A's network, B's network: where each of them shows what it is for.
ACTS = (
    ("tcp-direct", "open", "linux"),
    ("tcp-simopen", "linux", "linux-reject"),
    ("tcp-nutss", "linux-liberal", "linux"),
    ("tcp-syni", "linux-synfilter", "untracked"),
    ("tcp-midstream", "linux-synfilter", "linux-synfilter"),
    ("udp", "linux", "linux"),
    ("auto", "linux", "linux"),
)

_DELAY_MS = 25.0
_CHUNK_LEN = 1000  # a datagram this large is the application's


def demo(*, daemon: Sequence[str] = DAEMON, logs: Path | None = None) -> int:
    """Play every act and print the table; how many of them failed."""
    console = Console()
    errors = Console(stderr=True)
    table = Table(title=f"two daemons, two NATs, three routers; {_DELAY_MS:g} ms from host to host", show_lines=True)
    table.add_column("technique", style="bold", no_wrap=True)
    table.add_column("networks", no_wrap=True)
    table.add_column("on the wire, in order", ratio=1, min_width=24)
    table.add_column("sockets, local > remote", overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("moved", justify="right", no_wrap=True)
    failures = 0
    for technique, kind_a, kind_b in ACTS:
        with errors.status(f"{technique}: {kind_a} x {kind_b}"):
            result, wire = _play(technique, kind_a, kind_b, daemon=daemon, logs=logs)
        failures += result.ok == 0
        table.add_row(technique, f"A {kind_a}\nB {kind_b}", *_cells(result, wire))
    console.print(table)
    console.print("ms: from A's request to the socket in that application's hands (A, then B).")
    return failures


def _play(technique: str, kind_a: str, kind_b: str, *, daemon: Sequence[str], logs: Path | None) -> tuple[Result, Wire]:
    with Lab(kind_a, kind_b, delay_ms=_DELAY_MS, echo=None) as lab:
        with Pair(lab, daemon=daemon, logs=logs) as pair, Wire(lab) as wire:
            return pair.run(technique, runs=1), wire


def _cells(result: Result, wire: Wire) -> tuple[str, str, str, str]:
    flows = sorted(wire.stories().values(), key=len)
    told = story(filter(_is_sent, takewhile(_before_data, flows[-1]))) if flows else "nothing"
    if result.ok == 0:
        return f"{told}\n[red]{'; '.join(result.messages)}[/red]", "none", "-", "-"
    if len(flows) > 1:
        told += f"; {len(flows) - 1} more opened as spares and closed"
    a, b = result.last
    places = "\n".join(f"{name} {side['local']} > {side['remote']}" for name, side in (("A", a), ("B", b)))
    times = f"{result.times_a_ms[0]:.1f}\n{result.times_b_ms[0]:.1f}"
    return told, places, times, f"{SIZE // 1024} KiB >\n< {SIZE // 1024} KiB"


def _is_sent(sight: Sight) -> bool:
    """Routers' errors are left out: where a packet dies is already said."""
    return sight.packet.icmp is None


def _before_data(sight: Sight) -> bool:
    packet = sight.packet
    return packet.payload_len == 0 if packet.flags else packet.payload_len < _CHUNK_LEN
