"""How long from the request's write to the descriptor in hand, and how much of that is punchd's own share?
Nothing is taken off in silence: the path and the side channel are measured beside, and both sums are shown.

With s the side channel's way and r the path's round trip, the limits are (design, section 6):

    B   s + r          A   s + 3r/2          A, early   s + r/2

"own share" is what a hand-over took beyond its limit, s being what each attempt's side line really took and r what
datagrams took to the server between the routers and back, through the same delay lines, in the same minute. "above
nominal" takes r as configured and s as r/2 instead: the delay line's own lateness is then counted as ours.
"""

from __future__ import annotations

import socket
import statistics
import time

from bench._duo import Duo, Outcome
from bench._frame import Figure, Plot, Progress, Report, at_most, share
from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab

TECHNIQUE = "tcp-midstream"
RTTS_MS = (0.0, 20.0, 100.0, 300.0)
RATE, BACKGROUND = 20.0, 200.0
LIMITS = {"B": 1.0, "A": 1.5, "A early": 0.5}
"""Round trips of the path after the side channel's way."""
ECHO_PORT = 7


def run(*, quick: bool, progress: Progress) -> Report:
    count = 50 if quick else 300
    figures: list[Figure] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for rtt_ms in (0.0, 100.0) if quick else RTTS_MS:
        with Duo("linux", "linux", delay_ms=rtt_ms / 2) as duo:
            for loaded in (False, True):
                for early in (False,) if quick and loaded else (False, True):
                    path_ms = _path_ms(duo.lab)
                    outcome = _measure(duo, count, rtt_ms=rtt_ms, early=early, loaded=loaded)
                    label = f"RTT {rtt_ms:g}, {'200/s beside' if loaded else 'idle'}"
                    own, nominal = _shares(outcome, path_ms, rtt_ms, early=early)
                    for side, values in own.items():
                        figures += _figures(f"{label}: {side}", values, nominal[side], loaded=loaded)
                        curve = [(value, (rank + 1) / len(values)) for rank, value in enumerate(sorted(values))]
                        lines[f"{side}, {label}"] = curve
                    progress(f"{label}{', early' if early else ''}: path {path_ms:.2f} ms, " + ", ".join(
                        f"{side} {share(values, 0.5):.2f} ms beyond" for side, values in own.items()
                    ))  # fmt: skip
    plots = [
        Plot(
            name=f"latency-{'loaded' if loaded else 'idle'}",
            title=f"{TECHNIQUE}: beyond the physical limit, {'200 a second beside' if loaded else 'idle'}",
            x="ms beyond the limit", y="share of attempts",
            lines={label: points for label, points in lines.items() if ("beside" in label) == loaded},
            upright={"target, median": 5.0 if loaded else 2.0},
        )
        for loaded in (False, True)
    ]  # fmt: skip
    return Report(figures, plots, {"technique": TECHNIQUE, "count": count, "background_per_s": BACKGROUND})


def _measure(duo: Duo, count: int, *, rtt_ms: float, early: bool, loaded: bool) -> Outcome:
    """So few a second that hardly two meet on a processor, though many may be under way."""
    background = None
    seconds = count / RATE + 2 + rtt_ms / 100
    if loaded:
        background = duo.begin(TECHNIQUE, int(BACKGROUND * seconds), rate=BACKGROUND)
        time.sleep(1 + rtt_ms / 200)
    outcome = duo.punch(TECHNIQUE, count, rate=RATE, early=early, times=True)
    if background is not None:
        background.finish(60)
    return outcome


def _shares(
    outcome: Outcome, path_ms: float, rtt_ms: float, *, early: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """By side, in ms: beyond the limit as measured, and beyond the limit as configured."""
    asked = {id_: begun for id_, begun, _ in outcome.times_a}
    side_ms = {id_: ns / 1e6 for id_, ns in outcome.side_ns}
    own: dict[str, list[float]] = {}
    nominal: dict[str, list[float]] = {}
    sides = {"A early" if early else "A": outcome.times_a, **({} if early else {"B": outcome.times_b})}
    for side, times in sides.items():
        for id_, _, in_hand in times:
            took_ms = (in_hand - asked[id_]) / 1e6
            own.setdefault(side, []).append(took_ms - side_ms[id_] - LIMITS[side] * path_ms)
            nominal.setdefault(side, []).append(took_ms - rtt_ms / 2 - LIMITS[side] * rtt_ms)
    return own, nominal


def _figures(label: str, own: list[float], nominal: list[float], *, loaded: bool) -> list[Figure]:
    note = f"above nominal: median {share(nominal, 0.5):.2f}, p99 {share(nominal, 0.99):.2f}"
    limit, spread = at_most(5.0 if loaded else 2.0), (min(own), max(own))
    median = Figure(f"{label} own share", share(own, 0.5), "ms", spread, limit, note)
    return [median, Figure(f"{label} own p99", share(own, 0.99), "ms", spread, None if loaded else at_most(5.0))]


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
