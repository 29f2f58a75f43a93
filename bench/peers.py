"""How do other programs fare in the same lab, through the same NATs: success, time, rate, CPU and packets?
Compares nothing but punches: the peers' signalling is free, punchd's passes a server that costs a round trip.

Plain simultaneous open has no proof and no interface: it is the bar to come near. CPU is of both ends, with punchd's
daemons and clients. Packets are those that reach the middle router, for each punch, whatever they were for. Peers
that can't be had, or for which no program is written yet, are listed with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench._duo import Duo, shorten_time_wait
from bench._frame import Figure, Progress, Report, Target, at_least, at_most, share
from punchd.lab.endpoints import start_coturn
from punchd.lab.namespace import Namespace
from punchd.lab.topology import SERVER

PAIRS = (
    ("linux", "linux"), ("linux", "linux-synfilter"), ("linux-synfilter", "linux-synfilter"), ("firewall", "firewall"),
    ("linux", "random"),
)  # fmt: skip
QUICK_PAIRS = PAIRS[:1] + PAIRS[2:3]
TIMEOUT_S = 5.0
OURS = ("tcp-midstream", "udp")
THEIRS = {"simopen": "tcp-midstream", "ice": "udp"}
"""Who is held beside which of ours."""
NAMES = {"simopen": "plain simultaneous open", "ice": "aioice"}
BAR = "simopen"
ABSENT = {
    "libnice": "no program for it is written yet; it needs libnice-dev and GLib",
    "hyperdht": "no program for it is written yet; it needs a bootstrap network of its own",
    "py-libp2p": "no program for it is written yet; it needs a relay",
}
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Fared:
    """Attempts one by one, which give the time, and many at once, which give the rest."""

    tries: int
    ok: int
    median_ms: float
    rate: float
    cpu_ms: float
    packets: float

    @property
    def success(self) -> float:
        return self.ok / self.tries


def run(*, quick: bool, progress: Progress) -> Report:
    tries, at_once = (10, 20) if quick else (20, 50)
    figures: list[Figure] = []
    for kinds in QUICK_PAIRS if quick else PAIRS:
        pair = " x ".join(kinds)
        with Duo(*kinds) as duo:
            shorten_time_wait(duo.lab)
            start_coturn(duo.lab)
            fared: dict[str, Fared] = {}
            for name, measure in _measures(duo).items():
                fared[name] = measure(tries, at_once if kinds == PAIRS[0] else 1)
                progress(f"{pair}: {name} {fared[name]}")
            for name, one in fared.items():
                figures.append(Figure(f"{pair}: {NAMES.get(name, name)}", one.success, "share"))
            if kinds == PAIRS[0]:
                figures += _columns(fared)
    figures += [Figure.absent(name, "", None, reason) for name, reason in ABSENT.items()]
    return Report(figures, conditions={"tries": tries, "at_once": at_once, "pairs": [list(kinds) for kinds in PAIRS]})


def _columns(fared: dict[str, Fared]) -> list[Figure]:
    """Where both succeeded: punchd's by the peer's. Ahead is below 1, but for the rate."""
    found = []
    for peer, ours in THEIRS.items():
        one, other = fared[ours], fared[peer]
        ahead: dict[str, tuple[float, float, Target]] = {
            "time": (one.median_ms, other.median_ms, at_most(1)),
            "rate": (one.rate, other.rate, at_least(1)),
            "CPU": (one.cpu_ms, other.cpu_ms, at_most(1)),
            "packets": (one.packets, other.packets, at_most(1)),
        }
        for column, (mine, theirs, target) in ahead.items():
            found.append(
                Figure(
                    f"{column}, {ours} by {NAMES[peer]}", mine / theirs if theirs else None, "x",
                    target=None if peer == BAR else target, note=f"{mine:.3g} by {theirs:.3g}",
                )
            )  # fmt: skip
    return found


def _measures(duo: Duo) -> dict[str, Callable[[int, int], Fared]]:
    def ours(technique: str) -> Callable[[int, int], Fared]:
        return lambda tries, at_once: _punchd(duo, technique, tries, at_once)

    def theirs(name: str) -> Callable[[int, int], Fared]:
        return lambda tries, at_once: _peer(duo, name, tries, at_once)

    return {name: ours(name) for name in OURS} | {name: theirs(name) for name in THEIRS}


def _punchd(duo: Duo, technique: str, tries: int, at_once: int) -> Fared:
    alone = duo.punch(technique, tries, concurrency=1, times=True)
    before = _packets(duo.lab.r2)
    many = duo.punch(technique, tries * at_once, concurrency=at_once)
    packets, count = _packets(duo.lab.r2) - before, tries * at_once
    took = [(given - asked) / 1e6 for _, asked, given in alone.times_a] or [0.0]
    cpu_ms = (many.cpu_s["daemons"] + many.cpu_s["clients"]) / count * 1000
    return Fared(tries + count, alone.ok + many.ok, share(took, 0.5), many.rate, cpu_ms, packets / count)


def _peer(duo: Duo, name: str, tries: int, at_once: int) -> Fared:
    alone, _ = _performed(duo, name, tries, 1)
    before = _packets(duo.lab.r2)
    many, other = _performed(duo, name, tries * at_once, at_once)
    packets, count = _packets(duo.lab.r2) - before, tries * at_once
    cpu_ms = (many["cpu_s"] + other["cpu_s"]) / count * 1000
    median = share(alone["times_ms"] or [0.0], 0.5)
    ok, rate = alone["ok"] + many["ok"], many["ok"] / many["seconds"]
    return Fared(tries + count, ok, median, rate, cpu_ms, packets / count)


def _performed(duo: Duo, name: str, count: int, at_once: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both programs said in the end, a's first."""
    lab = duo.lab
    with tempfile.TemporaryDirectory() as folder:
        more = [f"{folder}/signalling", str(count), str(at_once), str(TIMEOUT_S)]

        def start(host: Namespace, role: str, peer: str) -> subprocess.Popen[str]:
            argv = [sys.executable, "-m", f"bench._peers.{name}", role, *more, host.address, peer, SERVER]
            return host.popen(argv, stdout=subprocess.PIPE, text=True, cwd=_ROOT)

        b = start(lab.b, "b", lab.public_a)
        assert b.stdout is not None
        b.stdout.readline()
        a = start(lab.a, "a", lab.public_b)
        said = [json.loads(program.communicate()[0]) for program in (a, b)]
    return said[0], said[1]


def _packets(router: Namespace) -> int:
    """What has come in on all its interfaces."""
    links = json.loads(router.run(["ip", "-s", "-j", "link"]))
    return sum(int(link["stats64"]["rx"]["packets"]) for link in links)
