"""How long until a fresh daemon has answered its first request, and does an idle one wake up?
Measures warm starts, as of an installed program: the first one, which is not counted, leaves files and bytecode.

An idle daemon is asked nothing: its wake-ups are the voluntary context switches of all its threads.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench._frame import Figure, Progress, Report, at_most, interleaved, ratios
from bench._street import cpu_s, daemon, street
from punchd.lab.namespace import Namespace

_PING = b'{"call":"ping","id":"1"}\n'


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, idle_s = (3, 3.0) if quick else (7, 20.0)
    used: list[float] = []
    # not where the tree lies: there nobody may write, or Python was told not to (PYTHONDONTWRITEBYTECODE)
    with street() as (near, _), tempfile.TemporaryDirectory() as bytecode:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = bytecode
        _start(near, env, [])
        started = interleaved(
            rounds, {"punchd": lambda: _start(near, env, used), "python alone": lambda: _python(near)}, progress
        )
        with daemon(near) as (process, path):
            _ask(path)
            time.sleep(1)
            before, used_before = _wakes(process.pid), cpu_s(process.pid)
            time.sleep(idle_s)
            wakes = (_wakes(process.pid) - before) / idle_s
            share = (cpu_s(process.pid) - used_before) / idle_s
    return Report(
        [
            Figure.of("first answer", started["punchd"], "s", at_most(0.4)),
            Figure.of("daemon's CPU until then", used, "s"),
            Figure.of("starts of Python alone", ratios(started["punchd"], started["python alone"]), "x"),
            Figure("wake-ups when idle", wakes, "1/s", target=at_most(0)),
            Figure("CPU when idle", share * 1e6, "us/s"),
        ],
        conditions={"rounds": rounds, "idle_s": idle_s},
    )


def _start(near: Namespace, env: Mapping[str, str], used: list[float]) -> float:
    """Seconds from the start of the process to its answer."""
    begun = time.perf_counter()
    with daemon(near, env=env) as (process, path):
        _ask(path)
        took = time.perf_counter() - begun
        used.append(cpu_s(process.pid))
    return took


def _python(near: Namespace) -> float:
    begun = time.perf_counter()
    near.run([sys.executable, "-c", "pass"])
    return time.perf_counter() - begun


def _ask(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(_PING)
        assert b'"ok"' in sock.recv(65536)


def _wakes(pid: int) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text(encoding="ascii").splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total
