"""A lab with two daemons and, per measurement, two applications and a side channel; what they did and what it cost.
Judges nothing: rates, times and processor time are counted, the benches compare them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from punchd.lab.pair import DAEMON, Pair
from punchd.lab.topology import Lab

BUDGET = ("--target-budget", "1000000/1000000")
"""All punches go to one address; the default, 2000 packets a second, is there to stop just that."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measurement: so many punches, from the first request to the last byte."""

    ok: int
    failed: int
    codes_a: Counter[str]
    codes_b: Counter[str]
    seconds: float
    cpu_s: dict[str, float]
    """Processor seconds of daemons, clients and side; of each "... user" as well; of the machine; of others."""
    times_a: list[tuple[str, int, int]]
    """Of each attempt: its id, when the request was written, when the descriptor was in hand (monotonic ns)."""
    times_b: list[tuple[str, int, int]]
    side_ns: list[tuple[str, int]]
    """Of each attempt: its id, and how long its line was under way."""

    @property
    def rate(self) -> float:
        return self.ok / self.seconds

    @property
    def worse(self) -> Counter[str]:
        """How the attempts ended on the side where fewer went well."""
        return self.codes_a if self.codes_a.most_common(1)[0][1] <= self.codes_b.most_common(1)[0][1] else self.codes_b


def shorten_time_wait(lab: Lab) -> None:
    """A NAT's table has room for 262 144 connections, which full runs would fill with closed ones, kept 120 s."""
    for nat in (*lab.nats_a, *lab.nats_b):
        nat.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "10")


class Duo:
    """For a `with` block; any number of measurements in a row."""

    def __init__(
        self,
        kind_a: str,
        kind_b: str,
        *,
        delay_ms: float = 0.0,
        options: Sequence[str] = (),
        daemon: Sequence[str] = DAEMON,
    ) -> None:
        self.lab = Lab(kind_a, kind_b, delay_ms=delay_ms, echo=None)
        self.pair = Pair(self.lab, daemon=[*daemon, *BUDGET, *options])
        self._ports = iter(range(7000, 8000))
        self._stack = ExitStack()

    def __enter__(self) -> Duo:
        with ExitStack() as stack:
            stack.enter_context(self.lab)
            stack.enter_context(self.pair)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def punch(
        self,
        technique: str,
        count: int,
        *,
        concurrency: int = 1,
        rate: float = 0.0,
        side_delay_ms: float = 0.0,
        early: bool = False,
        told_ms: float | None = None,
        times: bool = False,
        patience_s: float = 120.0,
    ) -> Outcome:
        """`count` punches, so many in flight or so many a second."""
        run = self.begin(
            technique, count, concurrency=concurrency, rate=rate, side_delay_ms=side_delay_ms, early=early,
            told_ms=told_ms, times=times,
        )  # fmt: skip
        return run.finish(patience_s)

    def begin(
        self,
        technique: str,
        count: int,
        *,
        concurrency: int = 1,
        rate: float = 0.0,
        side_delay_ms: float = 0.0,
        early: bool = False,
        told_ms: float | None = None,
        times: bool = False,
        sockets: Mapping[str, str] | None = None,
    ) -> Running:
        """The same, without waiting for its end; `told_ms` is the request's side_delay_ms, `sockets` whom to ask."""
        place = f"{self.lab.server.address}:{next(self._ports)}"
        host, _, port = place.partition(":")
        side = self.lab.server.popen(
            [sys.executable, "-m", "bench._side", host, port, str(side_delay_ms)], stdout=subprocess.PIPE
        )
        assert side.stdout is not None
        side.stdout.readline()
        options = [
            f"--side={place}", f"--techniques={technique}", f"--count={count}", f"--concurrency={concurrency}",
            f"--rate={rate}", f"--transport={'udp' if technique.startswith('udp') else 'tcp'}",
            *([f"--told-ms={told_ms}"] if told_ms is not None else []),
            *(["--early"] if early else []), *(["--times"] if times else []),
        ]  # fmt: skip
        lab, clients = self.lab, {}
        for role, here, peer, own in (
            ("b", lab.b, lab.public_a, lab.public_b),
            ("a", lab.a, lab.public_b, lab.public_a),
        ):
            path = self.pair.socket_path(role) if sockets is None else sockets[role]
            argv = [sys.executable, "-m", "bench._client", role, f"--socket={path}"]
            clients[role] = here.popen(
                [*argv, f"--peer={peer}", f"--self={own}", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
        return Running(clients, side, self.pair)


class Running:
    """A measurement under way."""

    def __init__(self, clients: dict[str, subprocess.Popen[str]], side: subprocess.Popen[bytes], pair: Pair) -> None:
        self._clients, self._side, self._pair = clients, side, pair
        for client in clients.values():
            if self._line(client) != {}:
                raise RuntimeError("an application did not start")
        pids = {
            "daemons": [daemon.pid for daemon in pair.daemons],
            "clients": [client.pid for client in clients.values()],
            "side": [side.pid],
        }
        self._meter = Meter(pids)
        for client in clients.values():
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()

    def finish(self, patience_s: float) -> Outcome:
        try:
            a = self._line(self._clients["a"])
            cpu_s = self._meter.spent()
            b = self._line(self._clients["b"])
        finally:
            children: list[subprocess.Popen[Any]] = [*self._clients.values(), self._side]
            for child in children:
                child.terminate()
                child.wait(patience_s)
        codes_a, codes_b = Counter(a["codes"]), Counter(b["codes"])
        ok = min(a["ok"], b["ok"])
        return Outcome(
            ok=ok, failed=codes_a.total() - ok, codes_a=codes_a, codes_b=codes_b,
            seconds=(max(a["ended_ns"], b["ended_ns"] if b["ok"] else 0) - a["begun_ns"]) / 1e9, cpu_s=cpu_s,
            times_a=[tuple(one) for one in a["times"]], times_b=[tuple(one) for one in b["times"]],
            side_ns=[tuple(one) for one in b["side_ns"]],
        )  # fmt: skip

    def _line(self, client: subprocess.Popen[str]) -> dict[str, Any]:
        assert client.stdout is not None
        line = client.stdout.readline()
        if not line:
            words = "\n".join(self._pair.log(role).read_text()[-2000:] for role in ("a", "b"))
            raise RuntimeError(f"an application ended; its daemons' last words:\n{words}")
        said: dict[str, Any] = json.loads(line)
        return said


class Meter:
    """Processor time since it was made, by groups of processes."""

    def __init__(self, pids: dict[str, list[int]]) -> None:
        self._pids = pids
        self._begun = self._read()

    def spent(self) -> dict[str, float]:
        """Seconds: of each group (to the microsecond) and its "... user" (in ticks), of the machine, of others."""
        now, begun = self._read(), self._begun
        spent: dict[str, float] = {}
        for group, pids in self._pids.items():
            spent[group] = sum(now[pid].ran_s - begun[pid].ran_s for pid in pids)
            spent[f"{group} user"] = sum(now[pid].user_s - begun[pid].user_s for pid in pids)
        ours = {pid for pids in self._pids.values() for pid in pids} | {_MACHINE, os.getpid()}
        # what a process has used goes to whoever waits for it, so the sum over all misses no short-lived one
        others = sum(
            sign * (at.ran_s + at.children_s)
            for sign, table in ((1, now), (-1, begun))
            for pid, at in table.items()
            if pid not in ours
        )
        return spent | {"machine": now[_MACHINE].ran_s - begun[_MACHINE].ran_s, "others": others}

    def _read(self) -> dict[int, _At]:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, first)  # proc(5): all but idle and iowait
        found = {_MACHINE: _At((user + nice + system + irq + softirq + steal) * TICK_S, 0.0, 0.0)}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path(f"/proc/{entry}/stat").read_text(encoding="ascii", errors="replace")
                    ran_ns = Path(f"/proc/{entry}/schedstat").read_text(encoding="ascii").split()[0]
                except (FileNotFoundError, ProcessLookupError):
                    continue
                fields = stat.rpartition(")")[2].split()
                children_s = (int(fields[13]) + int(fields[14])) * TICK_S
                found[int(entry)] = _At(int(ran_ns) / 1e9, int(fields[11]) * TICK_S, children_s)
        return found


_MACHINE = 0


@dataclass(frozen=True, slots=True)
class _At:
    """What a process has used up to now; schedstat counts its main thread, and none here has others that work."""

    ran_s: float
    user_s: float
    children_s: float
