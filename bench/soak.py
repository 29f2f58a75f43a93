"""Does the daemon stay as it was through hours of punches, failures and callers that die? (--minutes M)
Judges no rate: it counts what is left after each round, when no attempt is open.

A round is a handful of punches with each technique through two Linux NATs, attempts whose peer never answers, attempts
whose caller dies in the middle, and a caller that sends nonsense. After it every attempt has to end by itself.

A daemon remembers each notification that it was given for an hour, 65 536 of them at most (daemon/admission.py): growth
by design, for some ten minutes at this rate. So before a long run the responder's memory of them is filled, and what it
gains then is gained by something else. What both gain while it is filled is told, too: as the initiator remembers none,
its daemon has no excuse. What is loaded or allocated once is over after the first minute, from which gains are counted.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._duo import Duo, shorten_time_wait
from bench._frame import Figure, Plot, Progress, Report, at_least, at_most
from punchd import client
from punchd.core.attempt import LINGER_S
from punchd.daemon.admission import NONCES_REMEMBERED
from punchd.daemon.tuples import GUARD_S
from punchd.lab.namespace import Namespace

MINUTES = 5.0
LONG_MINUTES = 5.0
QUICK_MINUTES = 0.25
TECHNIQUES = ("tcp-midstream", "tcp-simopen", "udp", "auto")
PUNCHES, ORPHANS, SILENT = 24, 24, 24
SILENT_MS = 400
PATIENCE_S = 15.0
QUIET_S = LINGER_S + GUARD_S + 0.5
"""For so long after its attempt a loser's socket keeps its port from others: no descriptor is left behind before."""
SETTLED_S = 60.0
MEMORY_MIB = 1.0
"""By how much a daemon may grow from the first quarter of the time that counts to the last: the allocator's own unrest.
A quick run is not held to it: each flow touches a page of the flow table, and the first thousands touch fresh ones."""
FIRST, FILLERS = 8192, 100
"""Of the notifications: so many before gains are counted; so many at once."""
RESPONDED = PUNCHES * len(TECHNIQUES)
INITIATED = RESPONDED + ORPHANS + SILENT
"""Attempts of a round, at each daemon."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What the two daemons hold while no attempt is open."""

    at_s: float
    attempts: int
    memory_a_kib: int
    memory_b_kib: int
    descriptors: int
    rules: int
    threads: int
    left_open: int

    @property
    def memory_kib(self) -> int:
        return self.memory_a_kib + self.memory_b_kib


def run(*, quick: bool, progress: Progress) -> Report:
    minutes = QUICK_MINUTES if quick else MINUTES
    long = minutes >= LONG_MINUTES
    remains: list[Remains] = []
    quiet: list[Remains] = []
    asked = punched = attempts = 0
    with Duo("linux", "linux") as duo:
        shorten_time_wait(duo.lab)
        hosts = (duo.lab.a, duo.lab.b)
        pids = [daemon.pid for daemon in duo.pair.daemons]
        paths = [str(duo.pair.socket_path(role)) for role in "ab"]
        peer, own = duo.lab.public_b, duo.lab.public_a
        filled: list[Remains] = []
        for count in (FIRST, NONCES_REMEMBERED - FIRST) if long else ():
            outcome = duo.punch(TECHNIQUES[0], count, concurrency=FILLERS)
            asked, punched, attempts = asked + count, punched + outcome.ok, attempts + 2 * count
            filled.append(_remains(0.0, attempts, pids, hosts, _left_open(paths)))
            progress(f"{punched} notifications remembered, {outcome.rate:.0f} a second: {filled[-1]}")
        begun = time.monotonic()
        while time.monotonic() - begun < 60 * minutes or len(remains) < 3:
            for technique in TECHNIQUES:
                outcome = duo.punch(technique, PUNCHES, concurrency=8)
                asked, punched = asked + PUNCHES, punched + outcome.ok
            _orphans(paths[0], peer, own)
            _silent(paths[0], peer, own)
            _nonsense(paths[0])
            attempts += INITIATED + RESPONDED
            left = _left_open(paths)
            time.sleep(0.1)  # the connections that asked go, too
            remains.append(_remains(time.monotonic() - begun, attempts, pids, hosts, left))
            progress(f"{attempts} attempts: {remains[-1]}")
            if not quiet:
                time.sleep(QUIET_S)
                quiet.append(_remains(time.monotonic() - begun, attempts, pids, hosts, left))
        time.sleep(QUIET_S)
        quiet.append(_remains(time.monotonic() - begun, attempts, pids, hosts, left))
    return _report(remains, filled, quiet, punched / asked, minutes)


def _report(
    remains: Sequence[Remains], filled: Sequence[Remains], quiet: Sequence[Remains], success: float, minutes: float
) -> Report:
    long = bool(filled)
    # the first round at least: it loads what is loaded late, and fills free lists and caches
    settled = [one for one in remains[1:] if one.at_s > SETTLED_S or not long]
    return Report(
        [
            Figure("attempts", remains[-1].attempts, "", note=f"in {len(remains)} rounds"),
            Figure("punches that went well", success, "", target=at_least(1.0)),
            Figure("attempts that did not end", sum(one.left_open for one in remains), "", target=at_most(0)),
            Figure("memory of both daemons", remains[-1].memory_kib / 1024, "MiB"),
            *_filling(filled),
            *_gains("initiator's", [one.memory_a_kib for one in settled], INITIATED, long=long),
            *_gains("responder's", [one.memory_b_kib for one in settled], RESPONDED, long=long),
            Figure("descriptors gained", _gained([one.descriptors for one in quiet]), "", target=at_most(0)),
            Figure("rules gained", _gained([one.rules for one in quiet]), "", target=at_most(0)),
            Figure("threads gained", _gained([one.threads for one in quiet]), "", target=at_most(0)),
        ],
        [
            Plot(
                name="soak", title="Memory of both daemons while no attempt is open", x="attempts so far", y="MiB",
                lines={"resident": [(one.attempts, one.memory_kib / 1024) for one in remains]},
            )
        ],
        conditions={"minutes": minutes, "techniques": list(TECHNIQUES)},
    )  # fmt: skip


def _gains(name: str, kib: Sequence[int], attempts: int, *, long: bool) -> list[Figure]:
    """Between the medians of the first and the last quarter; `attempts`: of each round."""
    quarter = max(1, len(kib) // 4)
    gained = statistics.median(kib[-quarter:]) - statistics.median(kib[:quarter])
    rounds = max(1, len(kib) - quarter)
    note = f"in {rounds * attempts} attempts" + (", from the second minute on" if long else "")
    limit = at_most(MEMORY_MIB) if long else None
    return [
        Figure(f"gained by the {name}", gained / 1024, "MiB", target=limit, note=note),
        Figure(f"gained by the {name}, of 1000 attempts", gained / (rounds * attempts) * 1000, "KiB"),
    ]


def _filling(filled: Sequence[Remains]) -> list[Figure]:
    if not filled:
        return []
    begun, ended = filled
    count = (ended.attempts - begun.attempts) // 2
    gains = {
        "initiator's": ended.memory_a_kib - begun.memory_a_kib,
        "responder's": ended.memory_b_kib - begun.memory_b_kib,
    }
    return [
        Figure(f"gained by the {name}, of 1000 punches before", kib / count * 1000, "KiB", note=f"of {count}")
        for name, kib in gains.items()
    ]


def _gained(values: Sequence[int]) -> int:
    return values[-1] - values[0]


def _orphans(path: str, peer: str, own: str) -> None:
    """Attempts whose caller is gone before they are over."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        for number in range(ORPHANS):
            sock.sendall(_line(number, peer, own, timeout_ms=60_000))
        sock.recv(1)  # some have begun


def _silent(path: str, peer: str, own: str) -> None:
    """Attempts that fail, for nobody tells the peer of them."""
    finals = 0
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.connect(path)
        for number in range(SILENT):
            sock.sendall(_line(number, peer, own, timeout_ms=SILENT_MS))
        while finals < SILENT:
            finals += json.loads(answers.readline())["status"] == "error"


def _nonsense(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b'{"call":"initiate"}\n\x00\xff\n{"call":"ping","id":' + b"x" * 70_000)
        sock.recv(65536)


def _line(number: int, peer: str, own: str, *, timeout_ms: int) -> bytes:
    request = {"call": "initiate", "id": str(number), "peer": peer, "self": own, "timeout_ms": timeout_ms}
    return json.dumps(request).encode() + b"\n"


def _left_open(paths: Sequence[str]) -> int:
    """How many attempts still have not ended when the patience has; a responder lingers for some seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        left = 0
        for path in paths:
            with client.connect_blocking(path) as daemon:
                left += daemon.status()["open"]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _remains(at_s: float, attempts: int, pids: Sequence[int], hosts: Sequence[Namespace], left: int) -> Remains:
    statuses = [_status(pid) for pid in pids]
    return Remains(
        at_s=round(at_s, 1),
        attempts=attempts,
        memory_a_kib=int(statuses[0]["VmRSS"].split()[0]),
        memory_b_kib=int(statuses[1]["VmRSS"].split()[0]),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        rules=sum(_rules(host) for host in hosts),
        threads=sum(int(status["Threads"]) for status in statuses),
        left_open=left,
    )


def _rules(host: Namespace) -> int:
    """Tables, chains, sets and rules; what is in a set goes by itself after its five minutes."""
    return len(json.loads(host.run(["nft", "-j", "list", "ruleset"]))["nftables"])


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
