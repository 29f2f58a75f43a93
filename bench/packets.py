"""How many segments a second are crafted, sent and found on the ring, beside bare C loops?
Punches nothing: two namespaces, a wire, and the C module as the daemon uses it.

The floods come from the far host by bench/packets.c, as fast as one core sends or at a given rate. "Wake-ups" are
returns of poll() for the ring's descriptor: what would wake the daemon's loop.

Whoever reads each of a flood's own SYNs loses some where the generator is faster than the reader, or the reader waits
for a core for longer than the ring lasts. So both readers, ours and the bare C loop, are offered the same rates, each
higher than the one before, and what counts is the highest up to which neither round lost any. Processor time for one
SYN says what a reader could take if it always had a core.
"""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench._frame import Figure, Progress, Report, at_least, at_most, interleaved, number, ratios
from bench._street import FAR, NEAR, built, street
from punchd.edge.native import FLAG_ACK, RING_FRAMES, Flows, RawSender, Ring, Segment, Shots, spray
from punchd.lab.namespace import Namespace

FIRST, LAST = 21000, 31999
PORTS = 4096
"""Of the range: so many flows are ours where all are."""
STRANGER, OWN = "203.0.113.7", "203.0.113.8"
OWN_PORT, OWN_EVERY = 9, 64
RATES, QUICK_RATES = (50_000, 100_000, 150_000, 200_000, 250_000, 300_000), (50_000, 100_000, 200_000, 300_000)
"""Own SYNs a second; the generator's own highest lies near the last."""
TRIES, OFFERED = 2, 0.95
"""Floods at each rate, and the part of it that the generator has to reach: it may wait for a core, too."""
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
    cpu_us: float
    """Processor time of the reader for each frame that it was told."""
    most: int = 0
    """Frames that one look into the ring found, at most."""

    @property
    def lost(self) -> int:
        return self.sent - self.seen


Reader = Callable[..., Sighting]
"""Is given a count of own SYNs and, by keyword, their rate (0: as fast as the generator sends)."""


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, count = (3, 100_000) if quick else (5, 400_000)
    rates, seconds = (QUICK_RATES, 0.5) if quick else (RATES, 1.0)
    with street() as (near, far), built(Path(__file__).with_suffix(".c"), *_CRAFTING) as program:
        for host in (near, far):
            host.nft(_QUIET)  # the tap comes before; no stack answers a flood
        crafted = interleaved(rounds, {"crafted": lambda: _craft(count * 10)}, progress)["crafted"]
        sending = interleaved(
            rounds,
            {"sent": lambda: _send(near, count), "bare loop": lambda: _bare_send(near, program, count)},
            progress,
        )
        readers: dict[str, Reader] = {
            "ours": partial(_flood, near, far, program, own=True),
            "the bare loop": partial(_bare_ring, near, far, program),
        }
        flooded = _flooded_readers(readers, rounds, count, progress)
        climbed = _climbed(readers, rates, seconds, progress)
        foreign = [_flood(near, far, program, count) for _ in range(rounds)]
        mixed = [_flood(near, far, program, count, every=OWN_EVERY) for _ in range(rounds)]
        sifting = [_flood(near, far, program, count, sift=False) for _ in range(1)]
    ours, bare = flooded["ours"], flooded["the bare loop"]
    told = [one.rate for one in ours]
    return Report(
        [
            Figure.of("segments crafted", crafted, "1/s", at_least(10e6)),
            Figure.of("segments sent", sending["sent"], "1/s"),
            Figure.of("of a bare sendmmsg loop", ratios(sending["sent"], sending["bare loop"]), "x", at_least(0.9)),
            Figure.of("own SYNs told", told, "1/s"),
            Figure.of("of a bare ring loop", ratios(told, [one.rate for one in bare]), "x", at_least(0.9)),
            Figure.of("reader's CPU for one", [one.cpu_us for one in ours], "us"),
            Figure.of("most told at once", [one.most for one in ours], "", note=f"the ring has {RING_FRAMES} frames"),
            Figure.of("bare loop's CPU for one", [one.cpu_us for one in bare], "us"),
            Figure.of("own SYNs lost", [one.lost for one in ours], "", at_most(0), note=f"of {count}, at full rate"),
            Figure.of("lost by the bare loop", [one.lost for one in bare], "", note=f"of {count}, at full rate"),
            _without_loss(climbed["ours"], climbed["the bare loop"]),
            Figure("bare loop's highest", climbed["the bare loop"].rate, "1/s", note=climbed["the bare loop"].end),
            Figure.of("foreign SYNs", [one.flood for one in foreign], "1/s", note="as many as the generator makes"),
            Figure.of("wake-ups by foreign SYNs", [one.wakes for one in foreign], "", at_most(0)),
            Figure.of("wake-ups without the sieve", [one.wakes for one in sifting], "", note="where bpf() is refused"),
            Figure.of("own SYNs among foreign", [one.own for one in mixed], ""),
            Figure.of("of them missed", [one.own - one.seen for one in mixed], "", at_most(0)),
        ],
        conditions={"rounds": rounds, "segments": count, "frames": RING_FRAMES, "flows": PORTS, "rates": rates},
    )  # fmt: skip


def _flooded_readers(
    readers: Mapping[str, Reader], rounds: int, count: int, progress: Progress
) -> dict[str, list[Sighting]]:
    """What each had of floods as fast as the generator sends."""
    sightings: dict[str, list[Sighting]] = {name: [] for name in readers}

    def read(name: str) -> float:
        sightings[name].append(readers[name](count))
        return sightings[name][-1].rate

    interleaved(rounds, {name: partial(read, name) for name in readers}, progress)
    return sightings


@dataclass(slots=True)
class Climb:
    """The highest rate at which a reader missed none, and why it was offered no higher one."""

    rate: int = 0
    end: str = ""


def _climbed(
    readers: Mapping[str, Reader], rates: Sequence[int], seconds: float, progress: Progress
) -> dict[str, Climb]:
    climbs = {name: Climb() for name in readers}
    for rate in rates:
        for name in [name for name in readers if not climbs[name].end]:
            climbs[name].end = _gives_out(readers[name], rate, seconds)
            if not climbs[name].end:
                climbs[name].rate = rate
            progress(f"{name}, offered {rate} a second: {climbs[name].end or 'none lost'}")
    return climbs


def _gives_out(reader: Reader, rate: int, seconds: float) -> str:
    """Nothing if none of several floods at this rate was lost; else why that can't be said."""
    for _ in range(TRIES):
        one = reader(int(rate * seconds), rate=rate)
        if one.flood < OFFERED * rate:
            return f"the generator made {number(one.flood)} of {rate} a second"
        if one.lost:
            return f"at {rate} lost {one.lost} of {one.sent}"
    return ""


def _without_loss(ours: Climb, bare: Climb) -> Figure:
    """Ours is to come as far as the bare loop comes."""
    name = "highest rate without loss"
    if not bare.rate:
        return Figure.absent(name, "1/s", at_least(1), f"the bare loop: {bare.end}")
    return Figure(name, ours.rate, "1/s", target=at_least(0.9 * bare.rate), note=ours.end)


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


def _flooded(host: Namespace, program: Path, target: str, count: int, rate: int = 0) -> tuple[int, int, float]:
    return _said(host.run(_flood_command(program, target, count, rate=rate)))


def _flood_command(program: Path, target: str, count: int, *, every: int = 0, rate: int = 0) -> list[str]:
    return [str(program), "flood", STRANGER, target, str(count), str(FIRST), str(PORTS), OWN, str(every), str(rate)]


def _said(text: str) -> tuple[int, int, float]:
    first, second, took_s = text.split()
    return int(first), int(second), float(took_s)


def _bare_ring(near: Namespace, far: Namespace, program: Path, count: int, *, rate: int = 0) -> Sighting:
    reader = near.popen(
        [str(program), "ring", str(RING_FRAMES), str(FIRST), str(LAST)], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert reader.stdout is not None
    reader.stdout.readline()
    sent, own, flood_s = _flooded(far, program, NEAR, count, rate)
    said, _, used_s = reader.stdout.read().rpartition(" ")
    seen, drops, took_s = _said(said)
    reader.wait()
    return Sighting(sent, own, seen, drops, 0, seen / took_s, sent / flood_s, float(used_s) / seen * 1e6)


def _flood(
    near: Namespace, far: Namespace, program: Path, count: int, *,
    own: bool = False, every: int = 0, rate: int = 0, sift: bool = True,
) -> Sighting:  # fmt: skip
    """One flood through our ring: with flows for all of it, for every so-manieth segment, or for none."""
    flows = Flows(2 * PORTS + 16384)
    for i in range(8192 if own else 0):
        flows.put(NEAR, FIRST + i % PORTS, remote=STRANGER, remote_port=1024 + i, protocol=TCP, token=i + 1)
    for i in range(0, PORTS if every else 0):
        flows.put(NEAR, FIRST + i, remote=OWN, remote_port=OWN_PORT, protocol=TCP, token=i + 1)
    with near.enter():
        ring = Ring(FIRST, LAST, hole_ttl=2, flows=flows, sift=sift)
    with ring:
        generator = far.popen(
            _flood_command(program, NEAR, count, every=every, rate=rate), stdout=subprocess.PIPE, text=True
        )
        seen = wakes = most = 0
        first = last = 0.0
        poller = select.poll()
        poller.register(ring, select.POLLIN)
        used_s = time.process_time()
        while True:
            ready = poller.poll(_IDLE_MS)
            if ready:
                wakes += 1
                came = len(ring.drain())
                seen, most = seen + came, max(most, came)
                last = time.perf_counter()
                first = first or last
            elif generator.poll() is not None:
                break
        assert generator.stdout is not None
        sent, mine, flood_s = _said(generator.stdout.read())
        cpu_us = (time.process_time() - used_s) / max(seen, 1) * 1e6
        rate_told = seen / max(last - first, 1e-9)
        return Sighting(sent, mine, seen, ring.drops(), wakes, rate_told, sent / flood_s, cpu_us, most)
