"""kill -9 after every single effect, by index: no rule, no socket and no queue stays, and ICMP flows.

It refuses to sample: for each technique and both roles the daemon dies after its first effect, its second, and so
on until an attempt outlives it all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from duo import Talker, initiate
from foreign import Tracer
from running import Daemon, answers, held_sockets, punch_sockets, tables

from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("rules")]

TECHNIQUES = ["tcp-direct", "tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "udp", "auto"]
EFFECTS_MAX = 60
ORPHANS = {3, 4, 5, 6, 9, 11}
"""What no process holds, and only the kernel's timers end: handshakes of a listener that is gone (SYN-RECV), and the
farewells (FIN-WAIT-1 and -2, TIME-WAIT, LAST-ACK, CLOSING)."""


class Mother:
    """dying_daemon.py on one host."""

    def __init__(self, place: Namespace) -> None:
        self.place = place
        self._folder = Path(tempfile.mkdtemp(prefix="punchd-test-"))
        argv = [sys.executable, str(Path(__file__).with_name("dying_daemon.py"))]
        log = (self._folder / "log").open("wb")
        self._child = place.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def __enter__(self) -> Mother:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.terminate()
        self._child.wait()
        subprocess.run(["rm", "-r", str(self._folder)], check=True)

    def bear(self, number: int) -> Mortal:
        """A daemon that dies after so many effects."""
        path = str(self._folder / f"{number}.sock")
        self.say({"socket": path, "after": number})
        return Mortal(self, path, self.hear()["pid"])

    def say(self, order: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        text = self._child.stdout.readline()
        line: dict[str, Any] = json.loads(text)
        return line


class Mortal:
    """One of its daemons."""

    def __init__(self, mother: Mother, path: str, pid: int) -> None:
        self._mother, self.path, self.pid = mother, path, pid
        while not answers(path):
            time.sleep(0.002)

    def end(self) -> None:
        """By SIGTERM, if it still lives; returns when the kernel has buried it."""
        try:
            os.kill(self.pid, 15)
        except ProcessLookupError:
            pass
        self.buried()

    def buried(self) -> None:
        assert self.pid == self._mother.hear()["ended"]


@pytest.fixture(scope="module", name="lab")
def _lab() -> Iterator[Lab]:
    with Lab("open", "open", echo=None) as made:
        yield made


@pytest.fixture(scope="module", name="mothers")
def _mothers(lab: Lab) -> Iterator[dict[str, Mother]]:
    with Mother(lab.a) as a, Mother(lab.b) as b:
        yield {"a": a, "b": b}


@pytest.fixture(scope="module", name="survivors")
def _survivors(lab: Lab) -> Iterator[dict[str, Daemon]]:
    a, b = Daemon(lab.a), Daemon(lab.b)
    with a, b:
        yield {"a": a, "b": b}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("role", ["a", "b"])
def test_kill_after_any_effect_leaves_the_host_clean(
    lab: Lab, mothers: dict[str, Mother], survivors: dict[str, Daemon], technique: str, role: str
) -> None:
    """A crash must not cost a host its firewall, its ports or its ICMP."""
    mother, place = mothers[role], mothers[role].place
    own_tables = tables(place)
    for number in range(1, EFFECTS_MAX):
        daemon = mother.bear(number)
        paths = (
            {"a": daemon.path, "b": survivors["b"].path}
            if role == "a"
            else {"a": survivors["a"].path, "b": daemon.path}
        )
        lived = _attempt(lab, paths, technique, mortal=role)
        if lived:
            daemon.end()
        else:
            daemon.buried()
        assert own_tables == tables(place), f"after effect {number}"
        assert [] == held_sockets(place), f"after effect {number}"
        assert {sock["state"] for sock in punch_sockets(place)} <= ORPHANS, f"after effect {number}"
        with Tracer(place, 25999, (lab.public_b if role == "a" else lab.public_a, 33435)) as tracer:
            assert tracer.round_s() is not None, f"after effect {number}"
        if lived:
            assert number > 4
            return
    pytest.fail("there is no end of effects")


def _attempt(lab: Lab, paths: dict[str, str], technique: str, *, mortal: str) -> bool:
    """One attempt, as far as it gets; whether the mortal side outlived it."""
    with Talker(paths["a"]) as near, Talker(paths["b"]) as far:
        near.say(initiate(lab, technique))
        text = near.hear().get("notification")
        if text is None:
            return False
        far.say({"id": "1", "call": "respond", "notification": text})
        talker = near if mortal == "a" else far
        if not talker.final():
            return False
        # the linger and its effects end before a second attempt's first line is answered
        return _outlives(talker)


def _outlives(talker: Talker) -> bool:
    """Whether its daemon is alive when nothing of the attempt is left to do."""
    while True:
        try:
            status = talker.ask({"id": "s", "call": "status"})
        except (BrokenPipeError, ConnectionResetError):
            return False
        if not status:
            return False
        if status["runs"] == 0:
            return True
