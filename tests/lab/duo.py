"""Two applications in this process, each with the real punchd of its host: attempts in a line or two.

It refuses to be a second client library: whatever speaks well speaks punchd.client. Talker speaks badly.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from running import Daemon

from punchd import client
from punchd.lab.accept import Want
from punchd.lab.pair import DAEMON, Result
from punchd.lab.topology import Lab
from punchd.lab.transfer import TransferError, exchange

PATIENCE_S = 15.0
FAILING_MS = 1500
"""What a cell that may fail gets: longer than the kernel's first retransmission of a SYN."""


@dataclass(frozen=True, slots=True)
class Duo:
    """A lab with a punchd on either host."""

    lab: Lab
    a: Daemon
    b: Daemon

    async def run(
        self,
        techniques: Sequence[str] | str,
        *,
        transport: Literal["tcp", "udp"] = "tcp",
        timeout_ms: int = 10000,
        early: bool = False,
        side_delay_s: float = 0.0,
        told: bool = False,
        back: bool = False,
        daemons: tuple[client.Daemon, client.Daemon] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One attempt from initiate to 64 KiB each way; what each side has to say, as lab/app.py says it.

        `told`: the initiator's request says what the side channel takes. `back`: B initiates and A responds.
        `daemons`: connections that are shared with other attempts.
        """
        async with contextlib.AsyncExitStack() as stack:
            if daemons is None:
                daemons = (
                    await stack.enter_async_context(client.connect(self.a.path)),
                    await stack.enter_async_context(client.connect(self.b.path)),
                )
            near, far = reversed(daemons) if back else daemons
            own, peer = self.lab.public_a, self.lab.public_b
            if back:
                own, peer = peer, own
            asking = await near.initiate(
                peer=peer, self_=own, techniques=techniques, transport=transport, timeout_ms=timeout_ms, early=early,
                side_delay_ms=side_delay_s * 1000 if told else None,
            )  # fmt: skip
            t0_ns = time.monotonic_ns()
            first = asyncio.create_task(_side(asking, t0_ns, early=early))
            try:
                text = await asking.notification()
            except client.PunchFailed:
                said = await first
                return said, said
            await asyncio.sleep(side_delay_s)
            answering = await far.respond(text, timeout_ms=timeout_ms)
            return await asyncio.gather(first, _side(answering, t0_ns, early=False))

    async def cell(self, want: Want, *, runs: int) -> Result:
        """Some runs of a cell of the acceptance table, side by side where only their outcome counts."""
        result = Result(
            a=want.a, b=want.b, technique=want.technique, runs=runs, delay_ms=want.delay_ms, loss=0.0,
            side_delay_ms=want.side_delay_ms, early=want.early,
        )  # fmt: skip
        names = want.technique if want.technique == "auto" else want.technique.split(",")
        transport: Literal["tcp", "udp"] = "udp" if names[0].startswith("udp") else "tcp"
        timeout_ms = 10000 + round(want.side_delay_ms) if want.must else FAILING_MS
        going = [
            self.run(
                names, transport=transport, timeout_ms=timeout_ms, early=want.early,
                side_delay_s=want.side_delay_ms / 1000,
            )
            for _ in range(runs)
        ]  # fmt: skip
        for both in await asyncio.gather(*going):
            result.add(*both)
        return result

    @contextlib.contextmanager
    def punched(
        self, technique: str, *, early: bool = False, timeout_ms: int = 5000
    ) -> Iterator[tuple[client.Punched, client.Punched]]:
        """Both sockets, blocking, closed in the end; PunchFailed where it did not work."""
        transport: Any = technique.partition("-")[0]
        with client.connect_blocking(self.a.path) as near, client.connect_blocking(self.b.path) as far:
            asking = near.initiate(
                peer=self.lab.public_b, self_=self.lab.public_a, techniques=[technique], transport=transport,
                timeout_ms=timeout_ms, early=early,
            )  # fmt: skip
            answering = far.respond(asking.notification(), timeout_ms=timeout_ms)
            one = asking.result()
            with one.socket:
                other = answering.result()
                with other.socket:
                    for sock in (one.socket, other.socket):
                        sock.settimeout(PATIENCE_S)
                    yield one, other


@contextlib.contextmanager
def duo(
    kind_a: str,
    kind_b: str,
    *,
    command_a: Sequence[str] = DAEMON,
    command_b: Sequence[str] = DAEMON,
    options: Sequence[str] = (),
    **lab: Any,
) -> Iterator[Duo]:
    """A lab and both daemons, started side by side."""
    with Lab(kind_a, kind_b, echo=None, **lab) as made:
        a = Daemon(made.a, *options, command=command_a)
        b = Daemon(made.b, *options, command=command_b)
        with a, b:
            yield Duo(made, a, b)


def initiate(lab: Lab, technique: str, *, id: str = "1", timeout_ms: int = 10000) -> dict[str, Any]:
    """A's request for one technique, or for `auto`."""
    return {
        "id": id, "call": "initiate", "peer": lab.public_b, "self": lab.public_a, "timeout_ms": timeout_ms,
        "techniques": technique if technique == "auto" else [technique],
        "transport": "udp" if technique == "udp" else "tcp",
    }  # fmt: skip


async def _side(attempt: client.Attempt, t0_ns: int, *, early: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"ok": False, "failed": [], "t0_ns": t0_ns}

    async def follow() -> None:
        async for progress in attempt:
            if progress.code:
                said["failed"].append([progress.technique, progress.code])

    following = asyncio.create_task(follow())
    sock: socket.socket | None = None
    try:
        if early:
            sock = await attempt.early()
            said["ready_ns"] = time.monotonic_ns()
        punched = await attempt.result()
        sock = punched.socket
        said.setdefault("ready_ns", time.monotonic_ns())
        said |= {"technique": punched.technique, "local": punched.local, "remote": punched.remote}
        await exchange(sock, patience_s=5.0)
        said["ok"] = True
    except client.PunchFailed as failed:
        said |= {"code": failed.code, "message": failed.message, "cause": failed.cause}
    except TransferError as error:
        said |= {"code": "no-data", "message": str(error)}
    finally:
        await following
        if sock is not None:
            sock.close()
    return said


class Talker:
    """A caller that writes what it likes: bytes out, lines and descriptors in."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(path)
        self._text = b""
        self.fds: list[socket.socket] = []

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        for taken in self.fds:
            taken.close()
        self.fds.clear()

    def say(self, line: bytes | dict[str, Any]) -> None:
        """A line as it is, or an object as one line."""
        self.sock.sendall(json.dumps(line).encode() + b"\n" if isinstance(line, dict) else line)

    def hear(self) -> dict[str, Any]:
        """The next line; {} at the end of the connection."""
        while b"\n" not in self._text:
            text, ancillary, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
            for _, _, data in ancillary:
                self.fds += [socket.socket(fileno=fd) for fd in array.array("i", data)]
            if not text:
                return {}
            self._text += text
        line, self._text = self._text.split(b"\n", 1)
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, line: bytes | dict[str, Any]) -> dict[str, Any]:
        """The final reply to it; progress on the way there is passed over."""
        self.say(line)
        return self.final()

    def final(self) -> dict[str, Any]:
        while (heard := self.hear()).get("status") == "progress":
            pass
        return heard
