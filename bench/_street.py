"""Two namespaces and the wire between them, for benches that need no NAT; a daemon in one, C programs beside a bench.
Models no network: what needs NATs uses the lab."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from punchd.lab.namespace import Namespace, batch, new_prefix, remove

NEAR, FAR = "10.66.3.1", "10.66.3.2"
PATIENCE_S = 10.0
_CSRC = Path(__file__).parents[1] / "csrc"


@contextmanager
def street() -> Iterator[tuple[Namespace, Namespace]]:
    """The near host, where punchd is, and the far one."""
    prefix = new_prefix()
    near, far = (Namespace(f"{prefix}{side}", address, echo=None) for side, address in (("n", NEAR), ("f", FAR)))
    try:
        batch([f"netns add {near.name}", f"netns add {far.name}"], inside=None, echo=None)
        batch([f"link add eth0 type veth peer name eth0 netns {far.name}"], inside=near.name, echo=None)
        for host in (near, far):
            batch(
                [f"addr add {host.address}/24 dev eth0", "link set lo up", "link set eth0 up",
                 f"route add default via {NEAR if host is far else FAR}"],
                inside=host.name, echo=None,
            )  # fmt: skip
        near.run(["ping", "-c1", "-W2", FAR], check=False)
        yield near, far
    finally:
        near.stop_children()
        far.stop_children()
        remove([near.name, far.name])


@contextmanager
def built(source: Path, *more: str) -> Iterator[Path]:
    """A C program for the length of the block, with these files of csrc/ in it."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / source.stem
        files = [source, *(_CSRC / f"{name}.c" for name in more)]
        subprocess.run(["gcc", "-O2", "-Wall", "-o", program, *files], check=True)
        yield program


@contextmanager
def daemon(
    host: Namespace, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A punchd in that host, and the path of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/punchd.sock"
        log = Path(folder) / "log"
        with log.open("w") as written:
            process = host.popen(
                [sys.executable, "-m", "punchd", "--socket", path, "--log-level", "warning", *options],
                stderr=written, text=True, env=env,
            )  # fmt: skip
        try:
            _await(path, process, log)
            yield process, path
        finally:
            process.terminate()
            process.wait()


def _await(path: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(path) == 0:
                return
        time.sleep(0.002)
    raise RuntimeError(f"the daemon does not answer: {log.read_text(encoding='utf-8')[-2000:]}")


def cpu_s(pid: int) -> float:
    """What the process has used so far, in user space and in the kernel."""
    # Documentation/scheduler/sched-stats.rst: the first is time on a CPU in ns, exact where utime counts ticks
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
