"""Two daemons, two applications and a side channel in a lab: runs of one technique, and what came of them.

It refuses to help: both daemons have the same configuration in every cell and are told nothing of the kinds.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from . import endpoints
from .namespace import Namespace
from .topology import Lab
from .unprivileged import NOBODY

DAEMON = (sys.executable, "-m", "punchd")

# How a daemon is started, and as whom. Applications stay root: every punchd admits root.
PRIVILEGES: dict[str, tuple[tuple[str, ...], int | None]] = {
    "root": (DAEMON, None),
    "capable": ((sys.executable, "-m", "punchd.lab.unprivileged", "net"), NOBODY),
    "none": ((sys.executable, "-m", "punchd.lab.unprivileged", "none"), NOBODY),
}

# When the applications ask for their endpoint: never, once before they join, or anew before each run.
ENDPOINT = ("no", "join", "run")

_START_PATIENCE_S = 15.0
_PATIENCE_S = 60.0  # beyond timeout and side channel: only a hanging application takes so long


@dataclass(slots=True, kw_only=True)
class Result:
    """One cell. Times are from A's `initiate` line to the descriptor in that application's hands."""

    a: str
    b: str
    technique: str
    runs: int
    delay_ms: float
    loss: float
    side_delay_ms: float
    early: bool
    transport: str = "tcp"
    endpoint: str = "no"
    ok: int = 0
    first_try: int = 0
    causes_a: Counter[str] = field(default_factory=Counter)
    causes_b: Counter[str] = field(default_factory=Counter)
    winners: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    times_a_ms: list[float] = field(default_factory=list)
    times_b_ms: list[float] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    last: tuple[dict[str, Any], dict[str, Any]] = ({}, {})

    def add(self, a: dict[str, Any], b: dict[str, Any]) -> None:
        """Count one run: what application A and application B said of it."""
        self.last = a, b
        for side, result in (("A", a), ("B", b)):
            self.failed.update(f"{side} {technique}: {code}" for technique, code in result["failed"])
        if a["ok"] and b["ok"]:
            self.ok += 1
            self.first_try += max(a.get("tries", 1), b.get("tries", 1)) == 1
            self.winners[a["technique"]] += 1
            self.times_a_ms.append((a["ready_ns"] - a["t0_ns"]) / 1e6)
            self.times_b_ms.append((b["ready_ns"] - a["t0_ns"]) / 1e6)
            return
        for side, result, causes in (("A", a, self.causes_a), ("B", b, self.causes_b)):
            if not result["ok"]:
                causes[result["code"]] += 1
                self.messages[f"{side} {result['code']}: {result.get('message', '')}"] += 1

    def summary(self) -> dict[str, Any]:
        """The contract for scripts: one flat JSON object."""
        line: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        del line["last"]
        for side in ("a", "b"):
            times = line.pop(f"times_{side}_ms")
            line[f"time_{side}_ms"] = {
                "median": round(statistics.median(times), 2) if times else None,
                "worst": round(max(times), 2) if times else None,
            }
        return line | {"causes": self.causes_a + self.causes_b}


class Pair:
    """A lab with a daemon on each host, for the length of a `with` block; any number of cells in a row."""

    def __init__(
        self, lab: Lab, *, privileges: str = "root", daemon: Sequence[str] | None = None, logs: Path | None = None
    ) -> None:
        self.lab = lab
        command, self._uid = PRIVILEGES[privileges]
        self._daemon = list(daemon or command)
        self._logs = logs
        self._folder = Path()
        self._side_ports = iter(range(7000, 8000))
        self._stun: tuple[str, ...] = ()
        self.daemons: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Pair:
        self._folder = Path(tempfile.mkdtemp(prefix="punchd-lab-"))
        try:
            if self._uid is not None:
                os.chown(self._folder, self._uid, self._uid)
            if self._logs:
                self._logs.mkdir(parents=True, exist_ok=True)
            for role, host in (("a", self.lab.a), ("b", self.lab.b)):
                self._start_daemon(role, host)
            for role, daemon in zip(("a", "b"), self.daemons, strict=True):
                self._await_daemon(role, daemon)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def socket_path(self, role: str) -> Path:
        return self._folder / f"{role}.sock"

    def log(self, role: str) -> Path:
        return (self._logs or self._folder) / f"{role}.log"

    def run(
        self,
        technique: str,
        *,
        runs: int,
        transport: str | None = None,
        side_delay_ms: float = 0.0,
        early: bool = False,
        parallel: int = 1,
        hurry: bool = False,
        timeout_ms: int = 10000,
        endpoint: str = "no",
        tell_side_delay: bool = False,
        watch: Callable[[Result], None] = lambda result: None,
    ) -> Result:
        """Perform `runs` runs, at most `parallel` at a time; `watch` sees the result grow.

        With `hurry`, the others open together once as many as that have failed and none has connected.
        """
        lab = self.lab
        transport = transport or ("udp" if technique.startswith("udp") else "tcp")
        result = Result(
            a=lab.kind_a,
            b=lab.kind_b,
            technique=technique,
            runs=runs,
            delay_ms=lab.impairment.delay_ms,
            loss=lab.impairment.loss,
            side_delay_ms=side_delay_ms,
            early=early,
            transport=transport,
            endpoint=endpoint,
        )
        place = f"{lab.server.address}:{next(self._side_ports)}"
        host, _, port = place.partition(":")
        argv = [sys.executable, "-m", "punchd.lab.side", host, port, str(side_delay_ms)]
        side = lab.server.popen(argv, stdout=subprocess.PIPE)
        assert side.stdout is not None
        side.stdout.readline()
        options = [
            f"--side={place}",
            f"--techniques={technique}",
            f"--transport={transport}",
            f"--timeout-ms={timeout_ms}",
            *(["--early"] if early else []),
            # a - s - b is as long as a - b
            *([f"--side-delay-ms={lab.impairment.delay_ms + side_delay_ms}"] if tell_side_delay else []),
            *([f"--endpoint={endpoint}", f"--stun={self._server()}"] if endpoint != "no" else []),
        ]
        lines: queue.Queue[tuple[str, str]] = queue.Queue()
        applications = {role: self._start_application(role, options, lines) for role in ("a", "b")}
        try:
            patience_s = _PATIENCE_S + (timeout_ms + 2 * side_delay_ms) / 1000
            self._perform(
                applications, lines, result, parallel=parallel, hurry=hurry, patience_s=patience_s, watch=watch
            )
        finally:
            for child in (*applications.values(), side):
                child.terminate()
                child.wait()
        return result

    def _perform(
        self,
        applications: dict[str, subprocess.Popen[str]],
        lines: queue.Queue[tuple[str, str]],
        result: Result,
        *,
        parallel: int,
        hurry: bool,
        patience_s: float,
        watch: Callable[[Result], None],
    ) -> None:
        starting: dict[str, list[int]] = {role: [] for role in applications}
        while starting:
            del starting[self._next(lines, patience_s, starting)[0]]
        started, open_runs = 0, dict[int, dict[str, dict[str, Any]]]()
        while started < result.runs or open_runs:
            hopeless = hurry and not result.ok and started - len(open_runs) >= parallel
            while started < result.runs and (hopeless or len(open_runs) < parallel):
                open_runs[started] = {}
                # B first: it must be waiting when A's notification comes
                for role in ("b", "a"):
                    _order(applications[role], started)
                started += 1
            waiting = {role: [run for run, said in open_runs.items() if role not in said] for role in applications}
            role, said = self._next(lines, patience_s, {role: runs for role, runs in waiting.items() if runs})
            number = said["run"]
            open_runs[number][role] = said
            if len(open_runs[number]) == 2:
                both = open_runs.pop(number)
                result.add(both["a"], both["b"])
                watch(result)

    def _next(
        self, lines: queue.Queue[tuple[str, str]], patience_s: float, waiting: Mapping[str, Sequence[int]]
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """The next line of an application; `waiting`: the runs of which each has still to speak, none at its start."""
        try:
            role, line = lines.get(timeout=patience_s)
        except queue.Empty:
            who = " and ".join(f"{role} ({f'runs {runs}' if runs else 'starting'})" for role, runs in waiting.items())
            words = "\n".join(f"daemon {role}'s last words:\n{self._last_words(role)}" for role in waiting)
            raise RuntimeError(f"application {who} said nothing for {patience_s:g} s; {words}") from None
        if not line:
            raise RuntimeError(f"application {role} ended; its daemon's last words:\n{self._last_words(role)}")
        return role, json.loads(line)

    def _start_application(
        self, role: str, options: list[str], lines: queue.Queue[tuple[str, str]]
    ) -> subprocess.Popen[str]:
        host = self.lab.a if role == "a" else self.lab.b
        application = host.popen(
            [
                *[sys.executable, "-m", "punchd.lab.app", role, f"--socket={self.socket_path(role)}"],
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=_pump, args=(role, application, lines), daemon=True).start()
        return application

    def _start_daemon(self, role: str, host: Namespace) -> None:
        path = self.socket_path(role)
        with self.log(role).open("wb") as log:
            daemon = host.popen(
                [*self._daemon, "--socket", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.daemons.append(daemon)

    def _await_daemon(self, role: str, daemon: subprocess.Popen[Any]) -> None:
        path = self.socket_path(role)
        deadline = time.monotonic() + _START_PATIENCE_S
        while not _answers(path):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"daemon {role} does not listen; its last words:\n{self._last_words(role)}")
            time.sleep(0.01)

    def _server(self) -> str:
        """Whom the applications ask for their endpoint; it starts when the first one wants it."""
        if not self._stun:
            self._stun = endpoints.start_own(self.lab)
        return self._stun[0]

    def _last_words(self, role: str) -> str:
        lines = self.log(role).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:]) or "(none)"

    def _stop(self) -> None:
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _order(application: subprocess.Popen[str], number: int) -> None:
    assert application.stdin is not None
    try:
        application.stdin.write(f"{number}\n")
        application.stdin.flush()
    except BrokenPipeError:
        pass  # its end is told by the pump


def _pump(role: str, application: subprocess.Popen[str], lines: queue.Queue[tuple[str, str]]) -> None:
    assert application.stdout is not None
    for line in application.stdout:
        lines.put((role, line))
    lines.put((role, ""))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
