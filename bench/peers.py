"""How do other programs fare in the same lab, through the same NATs: success, time, rate, CPU and packets?
Compares nothing but punches: the peers' signalling is free, punchd's passes a server that costs a round trip.

Plain simultaneous open has no proof and no interface: it is the bar to come near. CPU is of both ends, with punchd's
daemons and clients. Packets are those that reach the middle router, for each punch, whatever they were for. Success is
compared through each pair of NATs, the other columns through two Linux NATs, where both succeeded. Peers that can't be
had are listed with the reason: libnice is used where its library is installed, hyperdht and py-libp2p are fetched into
a folder of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench._duo import Duo, shorten_time_wait
from bench._frame import Figure, Plot, Progress, Report, Target, at_least, at_most, number, share
from bench._peers.programs import PROGRAMS, STUN_PORTS, Program, packets, perform
from punchd.lab.endpoints import start_coturn

PAIRS = (
    ("linux", "linux"), ("linux", "linux-synfilter"), ("linux-synfilter", "linux-synfilter"), ("firewall", "firewall"),
    ("linux", "random"),
)  # fmt: skip
QUICK_PAIRS = PAIRS[:1] + PAIRS[2:3]
OURS = {"tcp-midstream": "tcp", "udp": "udp"}
"""Through the first pair by this technique, through the others by `auto` over this transport."""
AT_ONCE = 3
PEERS_AT_ONCE = 10
"""Through the other pairs, where there is only success to compare: whoever fails takes all the time that it has."""


@dataclass(frozen=True, slots=True)
class Fared:
    """Attempts one by one, which give the time, and many at once, which give the rest if there is any."""

    tries: int
    ok: int
    median_ms: float
    rate: float = 0.0
    cpu_ms: float = 0.0
    packets: float = 0.0

    @property
    def success(self) -> float:
        return self.ok / self.tries

    def __str__(self) -> str:
        parts = {"ms": self.median_ms, "a second": self.rate, "ms of CPU": self.cpu_ms, "packets": self.packets}
        told = [f"{number(part)} {name}" for name, part in parts.items() if part]
        return f"{self.ok} of {self.tries}" + (f": {', '.join(told)}" if told else "")


def run(*, quick: bool, progress: Progress) -> Report:
    tries, others_tries, at_once, timeout_s = (3, 3, 20, 2.0) if quick else (20, 10, 50, 10.0)
    pairs = QUICK_PAIRS if quick else PAIRS
    begun_s = time.monotonic()
    lacks = {program.name: program.install() for program in PROGRAMS}
    installing_s = time.monotonic() - begun_s
    present = [program for program in PROGRAMS if not lacks[program.name]]
    figures: list[Figure] = []
    succeeded: dict[str, list[tuple[float, float]]] = {}
    for place, kinds in enumerate(pairs):
        pair = " x ".join(kinds)
        with Duo(*kinds) as duo:
            shorten_time_wait(duo.lab)
            start_coturn(duo.lab, ports=STUN_PORTS)
            servers = {program.name: program.serve(duo.lab) for program in present}
            fared: dict[str, Fared] = {}
            measures: dict[str, Callable[[], Fared]] = {}
            for ours in OURS:
                if place:
                    measures[ours] = partial(_punchd_success, duo, OURS[ours], others_tries, timeout_s)
                else:
                    measures[ours] = partial(_punchd, duo, ours, tries, at_once)
            for program in present:
                server = servers[program.name]
                if place:
                    measures[program.name] = partial(_success, duo, program, server, others_tries, timeout_s)
                else:
                    measures[program.name] = partial(_peer, duo, program, server, tries, at_once, timeout_s)
            for name, measure in measures.items():
                fared[name] = measure()
                progress(f"{pair}: {name} {fared[name]}")
        for name, one in fared.items():
            label = f"punchd, {OURS[name]} by auto" if place and name in OURS else name
            figures.append(Figure(f"{pair}: {label}", one.success, "share", note=str(one)))
            succeeded.setdefault(f"punchd, {OURS[name]}" if name in OURS else name, []).append((place, one.success))
        if not place:
            figures += _columns(fared, present)
    figures += [Figure.absent(name, "", None, lack) for name, lack in lacks.items() if lack]
    plot = Plot(
        name="success", title="Attempts that succeeded, through the same NATs", x="", y="share of attempts",
        lines=succeeded, bars=tuple(" x\n".join(kinds) for kinds in pairs),
    )  # fmt: skip
    conditions = {"tries": tries, "others_tries": others_tries, "at_once": at_once}
    return Report(figures, [plot], conditions, installing_s)


def _columns(fared: dict[str, Fared], present: list[Program]) -> list[Figure]:
    """Where both succeeded: punchd's by the peer's. Ahead is below 1, but for the rate."""
    found = []
    for peer in present:
        one, other = fared[peer.beside], fared[peer.name]
        ahead: dict[str, tuple[float, float, Target]] = {
            "time": (one.median_ms, other.median_ms, at_most(1)),
            "rate": (one.rate, other.rate, at_least(1)),
            "CPU": (one.cpu_ms, other.cpu_ms, at_most(1)),
            "packets": (one.packets, other.packets, at_most(1)),
        }
        for column, (mine, theirs, target) in ahead.items():
            name = f"{column}, {peer.beside} by {peer.name}"
            if not one.ok or not other.ok:
                found.append(Figure.absent(name, "x", None, "not both succeeded"))
                continue
            note = f"{number(mine)} by {number(theirs)}"
            found.append(Figure(name, mine / theirs, "x", target=None if peer.bar else target, note=note))
    return found


def _punchd(duo: Duo, technique: str, tries: int, at_once: int) -> Fared:
    alone = duo.punch(technique, tries, concurrency=1, times=True)
    before = packets(duo.lab.r2)
    many = duo.punch(technique, tries * at_once, concurrency=at_once)
    came, count = packets(duo.lab.r2) - before, tries * at_once
    took = [(given - asked) / 1e6 for _, asked, given in alone.times_a] or [0.0]
    cpu_ms = (many.cpu_s["daemons"] + many.cpu_s["clients"]) / count * 1000
    return Fared(tries + count, alone.ok + many.ok, share(took, 0.5), many.rate, cpu_ms, came / count)


def _punchd_success(duo: Duo, transport: str, tries: int, timeout_s: float) -> Fared:
    """As an application has it that knows nothing: `auto`, both sides having asked for their endpoint."""
    found = duo.pair.run(
        "auto", transport=transport, runs=tries, parallel=AT_ONCE, timeout_ms=int(2 * timeout_s * 1000), endpoint="join"
    )
    return Fared(tries, found.ok, share(found.times_a_ms or [0.0], 0.5))


def _peer(duo: Duo, program: Program, server: str, tries: int, at_once: int, timeout_s: float) -> Fared:
    alone = perform(duo.lab, program, server, count=tries, at_once=1, timeout_s=timeout_s)
    count = tries if program.slow else tries * at_once
    many = perform(duo.lab, program, server, count=count, at_once=at_once, timeout_s=timeout_s)
    cpu_ms, came = many.cpu_s / many.count * 1000, many.packets / many.count
    ok, rate = alone.ok + many.ok, many.ok / many.seconds
    return Fared(alone.count + many.count, ok, share(alone.times_ms or [0.0], 0.5), rate, cpu_ms, came)


def _success(duo: Duo, program: Program, server: str, tries: int, timeout_s: float) -> Fared:
    at_once = 1 if program.singly else PEERS_AT_ONCE
    said = perform(duo.lab, program, server, count=tries, at_once=at_once, timeout_s=timeout_s)
    return Fared(said.count, said.ok, share(said.times_ms or [0.0], 0.5))
