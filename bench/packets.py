"""How many segments a second are crafted, sent and found on the ring, beside bare C loops?
Punches nothing: two namespaces, a wire, and the C module as the daemon uses it.

The flood comes from the far host by bench/packets.c, as fast as one core sends. "Wake-ups" are returns of poll() for
the ring's descriptor: what would wake the daemon's loop.
"""

from __future__ import annotations

import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench._frame import Figure, Progress, Report, at_least, at_most, interleaved, ratios
from bench._street import FAR, NEAR, built, street
from punchd.edge.native import FLAG_ACK, RING_FRAMES, Flows, RawSender, Ring, Segment, Shots, spray
from punchd.lab.namespace import Namespace

FIRST, LAST = 21000, 31999
PORTS = 4096
"""Of the range: so many flows are ours where all are."""
STRANGER, OWN = "203.0.113.7", "203.0.113.8"
OWN_PORT, OWN_EVERY = 9, 64
TCP = 6
_IDLE_MS = 300
_QUIET = "add table ip t; add chain ip t c { type filter hook prerouting priority -300; ip protocol tcp drop; }"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a reader of the ring had of one flood."""

    sent: int
    own: int
    seen: int
    drops: int
    wakes: int
    rate: float
    """Frames a second that the reader was told."""
    flood: float
    """Frames a second that the generator sent."""


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, count = (3, 100_000) if quick else (5, 400_000)
    with street() as (near, far), built(Path(__file__).with_suffix(".c"), *_CRAFTING) as program:
        for host in (near, far):
            host.nft(_QUIET)  # the tap comes before; no stack answers a flood
        crafted = interleaved(rounds, {"crafted": lambda: _craft(count * 10)}, progress)["crafted"]
        sending = interleaved(
            rounds,
            {"sent": lambda: _send(near, count), "bare loop": lambda: _bare_send(near, program, count)},
            progress,
        )
        told: list[Sighting] = []
        bare: list[Sighting] = []

        def tell(sightings: list[Sighting], one: Sighting) -> float:
            sightings.append(one)
            return one.rate

        capture = interleaved(
            rounds,
            {
                "told": lambda: tell(told, _flood(near, far, program, count, own=True)),
                "bare ring": lambda: tell(bare, _bare_ring(near, far, program, count)),
            },
            progress,
        )
        foreign = [_flood(near, far, program, count) for _ in range(rounds)]
        mixed = [_flood(near, far, program, count, every=OWN_EVERY) for _ in range(rounds)]
        sifting = [_flood(near, far, program, count, sift=False) for _ in range(1)]
    return Report(
        [
            Figure.of("segments crafted", crafted, "1/s", at_least(10e6)),
            Figure.of("segments sent", sending["sent"], "1/s"),
            Figure.of("of a bare sendmmsg loop", ratios(sending["sent"], sending["bare loop"]), "x", at_least(0.9)),
            Figure.of("own SYNs told", capture["told"], "1/s"),
            Figure.of("of a bare ring loop", ratios(capture["told"], capture["bare ring"]), "x", at_least(0.9)),
            Figure.of("own SYNs lost", [one.sent - one.seen for one in told], "", at_most(0)),
            Figure.of("lost by the bare loop", [one.sent - one.seen for one in bare], ""),
            Figure.of("foreign SYNs", [one.flood for one in foreign], "1/s", note="as many as the generator makes"),
            Figure.of("wake-ups by foreign SYNs", [one.wakes for one in foreign], "", at_most(0)),
            Figure.of("wake-ups without the sieve", [one.wakes for one in sifting], "", note="where bpf() is refused"),
            Figure.of("own SYNs among foreign", [one.own for one in mixed], ""),
            Figure.of("of them missed", [one.own - one.seen for one in mixed], "", at_most(0)),
        ],
        conditions={"rounds": rounds, "segments": count, "frames": RING_FRAMES, "flows": PORTS},
    )


_CRAFTING = ("segment", "checksum", "options", "filter")
_TEMPLATE = Segment(src=NEAR, dst=FAR, src_port=1, dst_port=1, seq=1, flags=FLAG_ACK)
_SHOTS = [(i, i + 1, FIRST, 1024 + i) for i in range(1024)]


def _craft(count: int) -> float:
    """Segments a second: the spray of a birthday, again and again, into one buffer."""
    shots, out = Shots(_SHOTS), bytearray(120 * len(_SHOTS))
    begun = time.perf_counter()
    for _ in range(count // len(_SHOTS)):
        spray(_TEMPLATE, shots, out)
    return count // len(_SHOTS) * len(_SHOTS) / (time.perf_counter() - begun)


def _send(near: Namespace, count: int) -> float:
    with near.enter():
        raw = RawSender()
    shots, sent = Shots(_SHOTS), 0
    with raw:
        begun = time.perf_counter()
        while sent < count:
            sent += raw.spray(_TEMPLATE, shots)
        return sent / (time.perf_counter() - begun)


def _bare_send(near: Namespace, program: Path, count: int) -> float:
    sent, _, took_s = _flooded(near, program, FAR, count)
    return sent / took_s


def _flooded(host: Namespace, program: Path, target: str, count: int, every: int = 0) -> tuple[int, int, float]:
    return _said(host.run(_flood_command(program, target, count, every)))


def _flood_command(program: Path, target: str, count: int, every: int) -> list[str]:
    return [str(program), "flood", STRANGER, target, str(count), str(FIRST), str(PORTS), OWN, str(every)]


def _said(text: str) -> tuple[int, int, float]:
    first, second, took_s = text.split()
    return int(first), int(second), float(took_s)


def _bare_ring(near: Namespace, far: Namespace, program: Path, count: int) -> Sighting:
    reader = near.popen(
        [str(program), "ring", str(RING_FRAMES), str(FIRST), str(LAST)], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert reader.stdout is not None
    reader.stdout.readline()
    sent, own, flood_s = _flooded(far, program, NEAR, count)
    seen, drops, took_s = _said(reader.stdout.read())
    reader.wait()
    return Sighting(sent, own, seen, drops, 0, seen / took_s, sent / flood_s)


def _flood(
    near: Namespace, far: Namespace, program: Path, count: int, *, own: bool = False, every: int = 0, sift: bool = True
) -> Sighting:
    """One flood through our ring: with flows for all of it, for every so-manieth segment, or for none."""
    flows = Flows(2 * PORTS + 16384)
    for i in range(8192 if own else 0):
        flows.put(NEAR, FIRST + i % PORTS, remote=STRANGER, remote_port=1024 + i, protocol=TCP, token=i + 1)
    for i in range(0, PORTS if every else 0):
        flows.put(NEAR, FIRST + i, remote=OWN, remote_port=OWN_PORT, protocol=TCP, token=i + 1)
    with near.enter():
        ring = Ring(FIRST, LAST, hole_ttl=2, flows=flows, sift=sift)
    with ring:
        generator = far.popen(_flood_command(program, NEAR, count, every), stdout=subprocess.PIPE, text=True)
        seen = wakes = 0
        first = last = 0.0
        poller = select.poll()
        poller.register(ring, select.POLLIN)
        while True:
            ready = poller.poll(_IDLE_MS)
            if ready:
                wakes += 1
                seen += len(ring.drain())
                last = time.perf_counter()
                first = first or last
            elif generator.poll() is not None:
                break
        assert generator.stdout is not None
        sent, mine, flood_s = _said(generator.stdout.read())
        return Sighting(sent, mine, seen, ring.drops(), wakes, seen / max(last - first, 1e-9), sent / flood_s)
