"""Prints the plan for two NAT classes, with the reason for each row: `python -m punchd.explain linux blacklist`.
Sends nothing, opens nothing and asks no daemon: hosts that can do everything are assumed.

    linux-synfilter to linux-noloose over tcp, 8 rows, primers of TTL 2:
     #  technique      opens    ports                  when                            why
     1  tcp-simopen    refired  drawn                  when called, at last after 5 s  the peer opens its own NAT ...
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import Any

from punchd.core import nicknames, places, plan, ttl
from punchd.core.techniques import TECHNIQUES
from punchd.wire.descriptor import TEXT_START, decode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.errors import RequestError
from punchd.words.nat import Allocation, Face, NatClass, Sample
from punchd.words.notification import Opening, Spread
from punchd.words.plan import Row, View
from punchd.words.requests import Place

_EXAMPLES = 10
_EXAMPLE_PORT = 40_000


def main(arguments: list[str]) -> int:
    """0: printed; 2: a class that nobody knows."""
    options = _options(arguments)
    now_ms = time.time() * 1000
    try:
        own, peer = (view(text, options.transport, now_ms) for text in (options.own, options.peer))
    except (ValueError, RequestError) as error:
        print(f"punchctl explain: {error}", file=sys.stderr)  # noqa: T201 - output of a command
        return 2
    times = plan.Times(now_ms, None if options.side_delay_ms is None else options.side_delay_ms / 1000)
    planned = explained(own, peer, options.transport, times=times, tried=options.tried)
    if options.json:
        print(json.dumps([record(row) for row in planned]))  # noqa: T201 - output of a command
    else:
        print("\n".join(_table(planned, options, primer_ttl(options.own, options.tried))))  # noqa: T201 - output of a command
    return 0


def view(text: str, transport: str, now_ms: float) -> View:
    """What a nickname or a descriptor says of a side. ValueError or RequestError: nothing."""
    if not text.startswith(TEXT_START):
        nat = nicknames.parse(text)
        return View(nat, face=_example(nat, now_ms) if nat.allocation is Allocation.SEQUENTIAL else None)
    descriptor = decode_descriptor(text)
    face = descriptor.tcp or descriptor.udp
    assert face is not None
    return places.view(Place(face.public.address, descriptor=descriptor), transport)


def explained(own: View, peer: View, transport: str, *, times: plan.Times, tried: int = 0) -> list[Row]:
    """The plan of a host that lacks nothing."""
    able = frozenset(need for technique in TECHNIQUES.values() for need in technique.needs)
    names, _ = plan.choose(None, transport, able)
    fans = plan.fans(transport, able)
    return plan.rows(names, listed=False, own=own, peer=peer, times=times, fans=fans, tried=tried)


def primer_ttl(text: str, tried: int) -> int:
    """How far primers of a host with this nickname or descriptor reach, after so many failed attempts."""
    found = decode_descriptor(text).ttl if text.startswith(TEXT_START) else None
    return ttl.rung(found or ttl.LEAST, tried, found=found is not None)


def record(row: Row) -> dict[str, Any]:
    """One row for programs."""
    found: dict[str, Any] = {"technique": row.technique, "opens": row.opening.name.lower(), "after_s": row.after_s}
    ports = {"own": row.own_port, "seen": row.seen_port, "peer": row.peer_port, "aim": row.aim_port}
    found["ports"] = {name: port for name, port in ports.items() if port}
    if row.lanes is not None:
        lanes = {"own": row.lanes.own, "seen": row.lanes.seen, "peers": row.lanes.peers, "aims": row.lanes.aims}
        found["lanes"] = {name: [one.first, one.count, one.step] for name, one in lanes.items()}
        found["handshake"] = row.lanes.handshake
    return found | {"reason": row.reason}


def _table(planned: list[Row], options: argparse.Namespace, hops: int) -> list[str]:
    cells = [("#", "technique", "opens", "ports", "when", "why")]
    for number, row in enumerate(planned, 1):
        cells.append((str(number), row.technique, row.opening.name.lower(), _ports(row), _when(row), row.reason))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    own, peer = (text if len(text) < 32 else "the descriptor" for text in (options.own, options.peer))
    rows = "1 row" if len(planned) == 1 else f"{len(planned)} rows"
    primers = f", primers of TTL {hops}" if any(row.opening is Opening.PRIMED for row in planned) else ""
    return [f"{own} to {peer} over {options.transport}, {rows}{primers}:", *lines]


def _ports(row: Row) -> str:
    if row.lanes is not None:
        own, peers = (f"{_spread(mine)} for {_spread(guessed)}" for mine, guessed in (
            (row.lanes.own, row.lanes.seen), (row.lanes.peers, row.lanes.aims)))  # fmt: skip
        return f"our {own}, the peer's {peers}"
    said = [
        f"{whose} {port or 'drawn one'} seen as {public}"
        for whose, port, public in (("our", row.own_port, row.seen_port), ("the peer's", row.peer_port, row.aim_port))
        if public
    ]
    return ", ".join(said) or "drawn"


def _spread(ports: Spread) -> str:
    if not ports.first:
        return "a drawn one" if ports.count == 1 else f"{ports.count} drawn ones"
    return str(ports.first) if ports.count == 1 else f"{ports.count} from {ports.first} by {ports.step}"


def _when(row: Row) -> str:
    if row.opening.name == "CALLED":
        return "when called"
    if row.timed:
        return f"after {row.after_s:g} s, until heard"
    return "at once" if not row.after_s else f"when called, at last after {row.after_s:g} s"


def _example(nat: NatClass, now_ms: float) -> Face:
    """As if its next ports had been sampled just now, and nobody else had taken any."""
    samples = tuple(
        Sample(int(now_ms) - 40 * (_EXAMPLES - turn), 22_000 + turn, _EXAMPLE_PORT + turn * nat.step)
        for turn in range(_EXAMPLES)
    )
    return Face(22_000, Endpoint("203.0.113.2", _EXAMPLE_PORT), nat, samples)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="punchctl explain", description=__doc__.partition("\n")[0])
    parser.add_argument("own", help=f"a descriptor, or one of {', '.join(nicknames.NICKNAMES)}")
    parser.add_argument("peer", help="the same of the peer")
    parser.add_argument("--transport", choices=("tcp", "udp"), default="tcp")
    parser.add_argument("--side-delay-ms", type=float, help="what the side channel takes one way")
    parser.add_argument("--tried", type=int, default=0, help="attempts that failed within the last minute")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has seen enough, as `head`
    sys.exit(main(sys.argv[1:]))
