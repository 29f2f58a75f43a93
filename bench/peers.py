"""How do other programs fare in the same lab, through the same NATs: success, time, rate, CPU and packets?
Compares nothing but punches: the peers' signalling is free, punchd's passes a server that costs a round trip.

Plain simultaneous open has no proof and no interface: it is the bar to come near. CPU is of both ends, with punchd's
daemons and clients. Packets are those that reach the middle router, for each punch, whatever they were for. Peers
that can't be had, or for which no program is written yet, are listed with the reason.
"""

from __future__ import annotations

import json
import shutil
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
TIMEOUT_S, QUICK_TIMEOUT_S = 10.0, 2.0
OURS = ("tcp-midstream", "udp")
THEIRS = {"simopen": "tcp-midstream", "ice": "udp", "hyper": "udp"}
"""Who is held beside which of ours."""
NAMES = {"simopen": "plain simultaneous open", "ice": "aioice", "hyper": "hyperdht"}
BAR = "simopen"
ABSENT = {
    "libnice": "no program for it is written yet; it needs libnice-dev and GLib",
    "py-libp2p": "no program for it is written yet; it needs a relay",
}
HYPER_AT_ONCE = 10  # more at once are slower, and a hundred of them fail
_ROOT = Path(__file__).parents[1]
_PACKAGES = _ROOT / "build" / "peers"
"""What is installed for peers, and nothing else; `./dev clean` removes it."""


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
    tries, at_once, timeout_s = (5, 20, QUICK_TIMEOUT_S) if quick else (20, 50, TIMEOUT_S)
    figures: list[Figure] = []
    absent = dict(ABSENT)
    hyper_lack = _install_hyper()
    if hyper_lack:
        absent["hyperdht"] = hyper_lack
    for kinds in QUICK_PAIRS if quick else PAIRS:
        pair = " x ".join(kinds)
        with Duo(*kinds) as duo:
            shorten_time_wait(duo.lab)
            start_coturn(duo.lab)
            fared: dict[str, Fared] = {}
            if not hyper_lack:
                _boot_hyper(duo)
            for name, measure in _measures(duo, timeout_s).items():
                if name == "hyper" and hyper_lack:
                    continue
                fared[name] = measure(tries, at_once if kinds == PAIRS[0] else 1)
                progress(f"{pair}: {name} {fared[name]}")
            for name, one in fared.items():
                figures.append(Figure(f"{pair}: {NAMES.get(name, name)}", one.success, "share"))
            if kinds == PAIRS[0]:
                figures += _columns(fared)
    figures += [Figure.absent(name, "", None, reason) for name, reason in absent.items()]
    return Report(figures, conditions={"tries": tries, "at_once": at_once, "pairs": [list(kinds) for kinds in PAIRS]})


def _columns(fared: dict[str, Fared]) -> list[Figure]:
    """Where both succeeded: punchd's by the peer's. Ahead is below 1, but for the rate."""
    found = []
    for peer, ours in THEIRS.items():
        if peer not in fared:
            continue
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


def _measures(duo: Duo, timeout_s: float) -> dict[str, Callable[[int, int], Fared]]:
    def ours(technique: str) -> Callable[[int, int], Fared]:
        return lambda tries, at_once: _punchd(duo, technique, tries, at_once)

    def theirs(name: str) -> Callable[[int, int], Fared]:
        return lambda tries, at_once: _peer(duo, name, tries, at_once, timeout_s)

    return {name: ours(name) for name in OURS} | {name: theirs(name) for name in THEIRS}


def _punchd(duo: Duo, technique: str, tries: int, at_once: int) -> Fared:
    alone = duo.punch(technique, tries, concurrency=1, times=True)
    before = _packets(duo.lab.r2)
    many = duo.punch(technique, tries * at_once, concurrency=at_once)
    packets, count = _packets(duo.lab.r2) - before, tries * at_once
    took = [(given - asked) / 1e6 for _, asked, given in alone.times_a] or [0.0]
    cpu_ms = (many.cpu_s["daemons"] + many.cpu_s["clients"]) / count * 1000
    return Fared(tries + count, alone.ok + many.ok, share(took, 0.5), many.rate, cpu_ms, packets / count)


def _peer(duo: Duo, name: str, tries: int, at_once: int, timeout_s: float) -> Fared:
    alone, _ = _performed(duo, name, tries, 1, timeout_s)
    before = _packets(duo.lab.r2)
    many, other = _performed(duo, name, tries * at_once, at_once, timeout_s)
    packets, count = _packets(duo.lab.r2) - before, tries * at_once
    cpu_ms = (many["cpu_s"] + other["cpu_s"]) / count * 1000
    median = share(alone["times_ms"] or [0.0], 0.5)
    ok, rate = alone["ok"] + many["ok"], many["ok"] / many["seconds"]
    return Fared(tries + count, ok, median, rate, cpu_ms, packets / count)


def _performed(
    duo: Duo, name: str, count: int, at_once: int, timeout_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both programs said in the end, a's first."""
    lab = duo.lab
    with tempfile.TemporaryDirectory() as folder:
        if name == "hyper":
            command = ["node", str(_HYPER), str(_PACKAGES)]
            more = [str(count), str(min(at_once, HYPER_AT_ONCE)), str(timeout_s), SERVER]
            ends: dict[str, list[str]] = {"a": [], "b": []}
        else:
            command = [sys.executable, "-m", f"bench._peers.{name}"]
            more = [f"{folder}/signalling", str(count), str(at_once), str(timeout_s)]
            ends = {"a": [lab.a.address, lab.public_b, SERVER], "b": [lab.b.address, lab.public_a, SERVER]}

        def start(host: Namespace, role: str) -> subprocess.Popen[str]:
            argv = [*command, role, *more, *ends[role]]
            return host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)

        b = start(lab.b, "b")
        assert b.stdout is not None
        b.stdout.readline()
        said = [json.loads(program.communicate()[0]) for program in (start(lab.a, "a"), b)]
    return said[0], said[1]


_HYPER = Path(__file__).parent / "_peers" / "hyper.js"


def _install_hyper() -> str:
    """Into the folder of peers; what is in the way, if anything is."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no node and npm"
    if not (_PACKAGES / "node_modules" / "hyperdht").is_dir():
        _PACKAGES.mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(_PACKAGES), "hyperdht"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"npm: {done.stderr.strip()[-200:]}"
    return ""


def _boot_hyper(duo: Duo) -> None:
    argv = ["node", str(_HYPER), str(_PACKAGES), "boot", SERVER]
    nodes = duo.lab.server.popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert nodes.stdout is not None
    if not nodes.stdout.readline():
        raise RuntimeError("hyperdht's own network did not start")


def _packets(router: Namespace) -> int:
    """What has come in on all its interfaces."""
    links = json.loads(router.run(["ip", "-s", "-j", "link"]))
    return sum(int(link["stats64"]["rx"]["packets"]) for link in links)
