"""Plain connections from host a to a server on host b, through a lab of the same kinds without any daemon.
Punches nothing: NAT b forwards a few ports to its host, as its owner would have configured it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from bench._street import cpu_s
from punchd.lab.topology import Lab

PORT, PORTS = 10_000, 64  # outside of the punch range and of the ephemeral one
_SOURCE = Path(__file__).with_name("_plain.c")
_BUILD = Path(__file__).parents[1] / "build" / "bench"

# What each kind's own rules would not let in, and no more.
_LINUX = f"""
insert rule ip lab forward ct status dnat accept
add chain ip lab bench {{ type nat hook prerouting priority dstnat; }}
add rule ip lab bench iifname "outside" tcp dport {PORT}-{PORT + PORTS - 1} dnat to HOST
"""
_UNTRACKED = f"""
insert rule ip lab prerouting iifname "outside" tcp dport {PORT}-{PORT + PORTS - 1} ip daddr set HOST notrack accept
"""
OPENED = {"linux": _LINUX, "untracked": _UNTRACKED}


class Baseline:
    """For a `with` block: both servers wait; any number of measurements in a row."""

    def __init__(self, kind_a: str, kind_b: str) -> None:
        self.lab, self._opened = Lab(kind_a, kind_b, echo=None), OPENED[kind_b]
        self._stack = ExitStack()

    def __enter__(self) -> Baseline:
        with ExitStack() as stack:
            lab = stack.enter_context(self.lab)
            lab.nat_b.nft(self._opened.replace("HOST", lab.b.address))
            self._programs = {"uvloop": [sys.executable, "-m", "bench._plain"], "C": [str(compiled(_SOURCE))]}
            self._servers: dict[str, int] = {}
            self._ports = {name: PORT + PORTS // 2 * number for number, name in enumerate(self._programs)}
            for name, program in self._programs.items():
                argv = [*program, "server", str(self._ports[name]), str(PORTS // 2)]
                server = lab.b.popen(argv, stdout=subprocess.PIPE)
                assert server.stdout is not None
                server.stdout.readline()
                self._servers[name] = server.pid
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rate(self, program: str, count: int, *, concurrency: int) -> float:
        """Connections a second by "uvloop" or "C"."""
        return self.measure(program, count, concurrency=concurrency)[0]

    def measure(self, program: str, count: int, *, concurrency: int) -> tuple[float, float]:
        """The same, and the milliseconds of processor that one cost both ends together."""
        where = [self.lab.public_b, str(self._ports[program]), str(PORTS // 2)]
        argv = [*self._programs[program], "client", *where, str(count), str(concurrency)]
        before_s = cpu_s(self._servers[program])
        took_s, used_s = map(float, self.lab.a.run(argv, timeout_s=120).split())
        return count / took_s, (used_s + cpu_s(self._servers[program]) - before_s) / count * 1000


def compiled(*sources: Path) -> Path:
    """The program, named like the first of its files and keyed by what is in all of them."""
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    binary = _BUILD / f"{sources[0].stem.strip('_')}-{key}"
    if not binary.exists():
        _BUILD.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", fresh, *sources], check=True)
        fresh.replace(binary)
    return binary
