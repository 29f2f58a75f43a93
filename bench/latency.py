"""How long from the request's write to the descriptor in hand, and how much of that is punchd's own share?
Nothing is taken off in silence: the path and the side channel are measured beside, and both sums are shown.

With s the side channel's way and r the path's round trip, the limits are (design, section 6):

    B   s + r          A   s + 3r/2          A, early   s + r/2          A, told s   s + r/2

"own share" is what a hand-over took beyond its limit, s being what each attempt's side line really took and r what
datagrams took to the server between the routers and back, through the same delay lines, in the same minute. "above
nominal" takes r as configured and s as r/2 instead: the delay line's own lateness is then counted as ours.

A hand-over wakes up processes, six times for B and seven for A, and idle cores of a virtual machine are slow to wake.
"plain messages" is the same with bench/_chain.py in the daemons' place, which passes on as many messages and does
nothing with them: what it takes beyond the limit is the machine's share of punchd's own share.
"Told s" gives `side_delay_ms` to a daemon that knows the peer's NAT (bench/_known.py), so that A fires to arrive just
after the notification; every TIMED_S, so half of that is in the median of its own share, and all of it in the p99.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench._duo import Duo, Outcome, shorten_time_wait
from bench._frame import Figure, Plot, Progress, Report, at_most, share
from punchd.core.pair import TIMED_S
from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab

PLACES = {("linux", "linux"): ("tcp-midstream", "tcp-simopen", "udp"), ("linux-synfilter", "untracked"): ("tcp-syni",)}
EARLY = ("tcp-midstream", "tcp-syni")
"""With the others A is still in SYN_RECV at its peer's first segment, or has no use for it."""
TOLD = "tcp-midstream"
KNOWN = (sys.executable, "-m", "bench._known")
RTTS_MS, QUICK_RTTS_MS = (0.0, 20.0, 100.0, 300.0), (0.0, 100.0)
DRAWN_MS = 100.0
RATE, BACKGROUND = 40.0, 200.0
LIMITS = {"B": 1.0, "A": 1.5, "A early": 0.5, "A told s": 0.5, "B, A told s": 1.0}
"""Round trips of the path after the side channel's way."""
ECHO_PORT = 7
MEDIAN_MS, WORST_MS, LOADED_MS = 2.0, 5.0, 5.0
Shares = dict[str, list[float]]
"""By side, in ms."""


@dataclass(slots=True)
class Findings:
    count: int
    progress: Progress
    figures: list[Figure] = field(default_factory=list)
    idle: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    loaded: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def run(*, quick: bool, progress: Progress) -> Report:
    found = Findings(20 if quick else 100, progress)
    for rtt_ms in QUICK_RTTS_MS if quick else RTTS_MS:
        for kinds, techniques in PLACES.items():
            wanted = [one for one in techniques if rtt_ms or one == TOLD or not quick]
            if not wanted:
                continue
            with Duo(*kinds, delay_ms=rtt_ms / 2) as duo:
                shorten_time_wait(duo.lab)
                if kinds == ("linux", "linux"):
                    _chained(duo, rtt_ms, found)
                for technique in wanted:
                    _idle(duo, technique, rtt_ms, found)
                    if not quick or (technique == TOLD and rtt_ms):
                        _loaded(duo, technique, rtt_ms, found)
        if rtt_ms:
            with Duo("linux", "linux", delay_ms=rtt_ms / 2, daemon=KNOWN) as duo:
                shorten_time_wait(duo.lab)
                for technique in (TOLD,) if quick else (TOLD, "udp"):
                    _told(duo, technique, rtt_ms, found)
    plots = [
        Plot(
            name=f"latency-{name}", title=f"Beyond the physical limit, round trip {DRAWN_MS:g} ms, {under}",
            x="ms beyond the limit", y="share of attempts", lines=lines,
            upright={"limit": 0.0, "target, median": limit},
        )
        for name, under, lines, limit in (
            ("idle", "nothing beside", found.idle, MEDIAN_MS),
            ("loaded", f"{BACKGROUND:g} a second beside", found.loaded, LOADED_MS),
        )
    ]  # fmt: skip
    return Report(found.figures, plots, {"count": found.count, "rate": RATE, "background_per_s": BACKGROUND})


def _chained(duo: Duo, rtt_ms: float, found: Findings) -> None:
    """The machine's part: nobody's target."""
    with tempfile.TemporaryDirectory() as folder:
        lab = duo.lab
        paths = {role: f"{folder}/{role}" for role in "ab"}
        daemons = [
            host.popen([sys.executable, "-m", "bench._chain", paths[role], peer], stdout=subprocess.PIPE)
            for role, host, peer in (("a", lab.a, lab.public_b), ("b", lab.b, lab.public_a))
        ]
        try:
            for daemon in daemons:
                assert daemon.stdout is not None
                daemon.stdout.readline()
            path_ms = _path_ms(lab)
            outcome = duo.begin("chain", found.count, rate=RATE, times=True, sockets=paths).finish(60)
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()
    label = f"RTT {rtt_ms:g}, idle: plain messages"
    for side, values in _shares(outcome, path_ms, {"A": outcome.times_a, "B": outcome.times_b}).items():
        note = f"p99 {share(values, 0.99):.2f}"
        found.figures.append(Figure(f"{label}, {side}", share(values, 0.5), "ms", _spread(values), None, note))
        _draw(found.idle, f"plain messages, {side}", values, rtt_ms)
        found.progress(f"{label}: {side} {share(values, 0.5):.2f} ms beyond")


def _idle(duo: Duo, technique: str, rtt_ms: float, found: Findings) -> None:
    path_ms, label = _path_ms(duo.lab), f"RTT {rtt_ms:g}, idle: {technique}"
    outcome = duo.punch(technique, found.count, rate=RATE, times=True)
    sides = {"A": outcome.times_a, "B": outcome.times_b}
    _judge(found, label, outcome, path_ms, rtt_ms, sides, lines=found.idle)
    if technique in EARLY:
        outcome = duo.punch(technique, found.count, rate=RATE, early=True, times=True)
        _judge(found, label, outcome, path_ms, rtt_ms, {"A early": outcome.times_a}, lines=found.idle)


def _told(duo: Duo, technique: str, rtt_ms: float, found: Findings) -> None:
    """B's time beside it: the train is work that its own proof has to wait for."""
    path_ms, label = _path_ms(duo.lab), f"RTT {rtt_ms:g}, idle: {technique}"
    outcome = duo.punch(technique, found.count, rate=RATE, told_ms=rtt_ms / 2, times=True)
    sides = {"A told s": outcome.times_a, "B, A told s": outcome.times_b}
    _judge(found, label, outcome, path_ms, rtt_ms, sides, lines={})


def _loaded(duo: Duo, technique: str, rtt_ms: float, found: Findings) -> None:
    """So few a second that hardly two of those timed meet on a processor, though many may be under way."""
    label = f"RTT {rtt_ms:g}, {BACKGROUND:g}/s beside: {technique}"
    seconds = found.count / RATE + 2 + rtt_ms / 100
    path_ms = _path_ms(duo.lab)
    background = duo.begin(technique, int(BACKGROUND * seconds), rate=BACKGROUND)
    time.sleep(1 + rtt_ms / 200)
    outcome = duo.punch(technique, found.count, rate=RATE, times=True)
    background.finish(60)
    sides = {"A": outcome.times_a, "B": outcome.times_b}
    _judge(found, label, outcome, path_ms, rtt_ms, sides, lines=found.loaded)


def _judge(
    found: Findings,
    label: str,
    outcome: Outcome,
    path_ms: float,
    rtt_ms: float,
    sides: Mapping[str, list[tuple[str, int, int]]],
    *,
    lines: dict[str, list[tuple[float, float]]],
) -> None:
    """Two figures a side: the median and, where nothing is beside, the p99."""
    loaded = lines is found.loaded
    nominal = _shares(outcome, rtt_ms, sides, side_ms=lambda _: rtt_ms / 2)
    for side, values in _shares(outcome, path_ms, sides).items():
        above, name = nominal[side], f"{label}, {side}"
        note = f"above nominal: median {share(above, 0.5):.2f}, p99 {share(above, 0.99):.2f}"
        if outcome.failed > 0:
            note += f"; {outcome.failed} failed"
        if side == "A told s":
            note += f"; one packet each {TIMED_S * 1000:g} ms"
        limit = at_most(LOADED_MS if loaded else MEDIAN_MS)
        found.figures.append(Figure(f"{name} own share", share(values, 0.5), "ms", _spread(values), limit, note))
        if not loaded:
            worst = at_most(WORST_MS)
            found.figures.append(Figure(f"{name} own p99", share(values, 0.99), "ms", _spread(values), worst))
        technique = label.rpartition(": ")[2]
        _draw(lines, f"{technique}, {side}", values, rtt_ms)
        found.progress(f"{name}: path {path_ms:.2f} ms, {share(values, 0.5):.2f} ms beyond")


def _shares(
    outcome: Outcome,
    path_ms: float,
    sides: Mapping[str, list[tuple[str, int, int]]],
    *,
    side_ms: Callable[[str], float] | None = None,
) -> Shares:
    """What each hand-over took beyond its limit; the side channel's way is what it was, if nothing else is said."""
    asked = {id_: begun for id_, begun, _ in outcome.times_a}
    measured = {id_: ns / 1e6 for id_, ns in outcome.side_ns}
    way_ms = side_ms or measured.__getitem__
    return {
        side: [
            (in_hand - asked[id_]) / 1e6 - way_ms(id_) - LIMITS[side] * path_ms
            for id_, _, in_hand in times
            if id_ in asked
        ]
        for side, times in sides.items()
    }


def _draw(lines: dict[str, list[tuple[float, float]]], label: str, values: list[float], rtt_ms: float) -> None:
    if rtt_ms == DRAWN_MS:
        lines[label] = [(value, (rank + 1) / len(values)) for rank, value in enumerate(sorted(values))]


def _spread(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _path_ms(lab: Lab) -> float:
    """a - s and b - s cross one delay line each: together they are the path from a to b and back."""
    return sum(_echo_ms(place, lab) for place in (lab.a, lab.b))


def _echo_ms(place: Namespace, lab: Lab) -> float:
    took = []
    with (
        lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        place.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker,
    ):
        server.bind((lab.server.address, ECHO_PORT))
        server.settimeout(2)
        asker.settimeout(2)
        for _ in range(9):
            begun = time.perf_counter()
            asker.sendto(b"x", (lab.server.address, ECHO_PORT))
            data, sender = server.recvfrom(16)
            server.sendto(data, sender)
            asker.recv(16)
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)
