"""One real punchd on a host of the lab, and what the kernel says it holds.

It refuses to talk: applications are in duo.py. The daemon ends with the `with` block, by its own pid.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from punchd.core.attempt import LINGER_S
from punchd.daemon.tuples import GUARD_S
from punchd.lab.namespace import Namespace
from punchd.lab.pair import DAEMON
from punchd.words.addresses import PUNCH_PORTS

BENT = (sys.executable, str(Path(__file__).with_name("bent_daemon.py")))
NOBODY = 65534
TIME_WAIT, SYN_SENT, LISTEN, ESTABLISHED = 6, 2, 10, 1

QUIET_S = LINGER_S + GUARD_S + 0.3
"""After an attempt that succeeded, both daemons have forgotten it."""

_START_PATIENCE_S = 15.0
_STOP_PATIENCE_S = 5.0


class Daemon:
    """Starts at once and listens when `with` is entered, so that two may start side by side."""

    def __init__(
        self, place: Namespace, *options: str, command: Sequence[str] = DAEMON, files: int | None = None
    ) -> None:
        self.place = place
        self._folder = Path(tempfile.mkdtemp(prefix="punchd-test-"))
        self._folder.chmod(0o755)  # a caller of another uid must get as far as the socket
        if "punchd.lab.unprivileged" in command:
            os.chown(self._folder, NOBODY, NOBODY)
        self.path = str(self._folder / "punchd.sock")
        self.log_path = self._folder / "log"

        def limit() -> None:
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with self.log_path.open("wb") as log:
            self.child = place.popen(
                [*command, "--socket", self.path, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=limit,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START_PATIENCE_S
        while not answers(self.path):
            if self.child.poll() is not None or time.monotonic() > deadline:
                said = self.log()[-2000:]
                shutil.rmtree(self._folder, ignore_errors=True)
                raise RuntimeError(f"punchd does not listen; its last words:\n{said}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.child.wait(_STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        said = self.log()
        shutil.rmtree(self._folder, ignore_errors=True)
        if kind is None:
            assert "Traceback" not in said, f"punchd stumbled:\n{said[-4000:]}"

    def log(self) -> str:
        """What it wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def fds(self) -> int:
        """How many descriptors it holds."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def counts(self) -> dict[str, int]:
        """What a daemon with the bend `counted` holds in memory; see bent_daemon.py."""
        answer = Path(f"{self.path}.count")
        answer.unlink(missing_ok=True)
        self.child.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _STOP_PATIENCE_S
        while not answer.exists():
            assert time.monotonic() < deadline, "punchd does not count"
            time.sleep(0.005)
        counts: dict[str, int] = json.loads(answer.read_text(encoding="ascii"))
        return counts

    def settles(self, before: dict[str, int], *, within_s: float = 2 * QUIET_S) -> dict[str, tuple[int, int]]:
        """What differs from the earlier counts once there was time to settle; nothing if nothing leaks."""
        deadline = time.monotonic() + within_s
        exact = before.keys() - {"blocks"}  # an interpreter caches; these are for bounds, not for equality
        while True:
            now = self.counts()
            differing = {key: (before[key], now[key]) for key in exact if now[key] != before[key]}
            if not differing or time.monotonic() > deadline:
                return differing
            time.sleep(0.1)

    def memory_kib(self) -> int:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match
        return int(match[1])

    def cpu_s(self) -> float:
        """Processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(path: str) -> bool:
    """Whether somebody serves there: the socket listens a while before it is served."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_START_PATIENCE_S)
        try:
            probe.connect(path)
            probe.sendall(b'{"id":"0","call":"ping"}\n')
            return bool(probe.recv(65536))
        except OSError:
            return False


def tables(place: Namespace) -> list[str]:
    """The nftables tables of punchds there."""
    # not as JSON: nft 1.0.6 stumbles over the owner flag
    lines = place.run(["nft", "list", "tables"]).splitlines()
    return [line.split()[2] for line in lines if line.startswith("table ip punchd-")]


def rules(place: Namespace) -> str:
    """The ruleset without what counts and ages: equal when nothing was added or left."""
    listing = place.run(["nft", "-s", "list", "ruleset"])
    return re.sub(r"\t\telements = \{.*?\}\n", "", listing, flags=re.DOTALL)


def punch_sockets(place: Namespace) -> list[dict[str, Any]]:
    """TCP and UDP sockets on punch ports: protocol, ports, state, inode (0: no process holds it)."""
    found = []
    with place.enter():
        listings = {name: Path(f"/proc/thread-self/net/{name}").read_text("ascii") for name in ("tcp", "udp")}
    for name, listing in listings.items():
        for line in listing.splitlines()[1:]:
            words = line.split()
            port, remote = (int(words[at].split(":")[1], 16) for at in (1, 2))
            if port in PUNCH_PORTS:
                found.append(
                    {
                        "protocol": name,
                        "port": port,
                        "remote": remote,
                        "state": int(words[3], 16),
                        "inode": int(words[9]),
                    }
                )
    return found


def held_sockets(place: Namespace) -> list[dict[str, Any]]:
    """Those that some process still holds, or that wait for a peer: TIME-WAIT and orphans are the kernel's."""
    return [sock for sock in punch_sockets(place) if sock["state"] != TIME_WAIT and sock["inode"]]
