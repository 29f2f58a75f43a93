"""What applications import to talk to punchd: asyncio and blocking, by the standard library alone.
It refuses to carry the notification: how it reaches the peer is the application's own matter.

    async with punchd.client.connect() as daemon:
        attempt = await daemon.initiate(peer="198.51.100.2", self_="203.0.113.2")
        await my_side_channel.send(await attempt.notification())
        punched = await attempt.result()
    reader, writer = await asyncio.open_connection(sock=punched.socket)

and on the other side `attempt = await daemon.respond(text)` and the same result(). The blocking twin is
connect_blocking(), without `async` and `await`. Leaving the `with` cancels what is still open. PROTOCOL.md
tells what the arguments mean; one that is absent takes the daemon's default.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from socket import socket as Socket
from types import TracebackType
from typing import Any, Literal, Required, TypedDict, Unpack

from punchd.client_book import (
    Book,
    Entry,
    Found,
    NoDaemon,
    OnNotification,
    Progress,
    Punched,
    PunchFailed,
    socket_path,
    try_open,
)

__all__ = [
    "Attempt",
    "BlockingAttempt",
    "BlockingDaemon",
    "BlockingKept",
    "Daemon",
    "Found",
    "Kept",
    "NoDaemon",
    "Progress",
    "PunchFailed",
    "Punched",
    "connect",
    "connect_blocking",
]

Places = str | Sequence[str]


class _Keys(TypedDict, total=False):
    timeout_ms: int | None
    early: bool | None
    secret: str | None
    on_notification: OnNotification | None
    """Called with the text for the peer as soon as there is one; notification() serves as well."""


class InitiateKeys(_Keys, total=False):
    """The arguments of initiate(). A trailing underscore keeps a name clear of Python's own."""

    peer: Required[Places]
    self_: Places | None
    transport: Literal["tcp", "udp"] | None
    techniques: str | Sequence[str] | None
    side_delay_ms: float | None


class RespondKeys(_Keys, total=False):
    """The arguments of respond() besides the notification."""

    from_: Sequence[str] | None


class EndpointKeys(TypedDict, total=False):
    """The arguments of endpoint() and keep_endpoint()."""

    servers: Sequence[str] | None
    transport: Literal["tcp", "udp", "both"] | None
    timeout_ms: int | None
    peer: str | None


def connect(path: str | None = None) -> Daemon:
    """For `async with`. The path: the argument, else PUNCHD_SOCKET, else /tmp/punchd.socket."""
    return Daemon(socket_path(path))


def connect_blocking(path: str | None = None) -> BlockingDaemon:
    """For `with`. Not for use by several threads at once."""
    return BlockingDaemon(socket_path(path))


class Daemon:
    """punchd on this host, for asyncio. Any number of attempts may be open."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._output = bytearray()

    async def __aenter__(self) -> Daemon:
        while (opened := try_open(self._path)) is None:  # noqa: ASYNC110 - no event tells of a place in a backlog
            await asyncio.sleep(0.01)
        self._socket = opened
        self._book = Book()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(opened.fileno(), self._readable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._book.close()

    async def initiate(self, **keys: Unpack[InitiateKeys]) -> Attempt:
        """Start an attempt; carry its notification to the peer at once."""
        return Attempt(self, self._ask("initiate", dict(keys)))

    async def respond(self, notification: str, **keys: Unpack[RespondKeys]) -> Attempt:
        """Act on a peer's notification. An own one may come: carry it back, the peer gives it to notify()."""
        return Attempt(self, self._ask("respond", dict(keys, notification=notification)))

    async def endpoint(self, **keys: Unpack[EndpointKeys]) -> Found:
        """How this host looks from outside, once."""
        entry = self._ask("endpoint", dict(keys))
        await self._until(entry, lambda: entry.ended)
        return entry.take_found()

    async def keep_endpoint(self, **keys: Unpack[EndpointKeys]) -> Kept:
        """The same, and the mapping is kept until cancel() or the end of the connection."""
        return Kept(self, self._ask("endpoint", dict(keys, keep=True)))

    async def ping(self) -> dict[str, Any]:
        """Protocol, version, techniques that can work here, and what is missing."""
        return await self._call("ping", {})

    async def status(self) -> dict[str, Any]:
        """What runs."""
        return await self._call("status", {})

    async def cancel(self, attempt: str) -> dict[str, Any]:
        """End an attempt by its name, as status lists it."""
        return await self._call("cancel", {"attempt": attempt})

    async def _call(self, call: str, keys: dict[str, Any]) -> dict[str, Any]:
        entry = self._ask(call, keys)
        await self._until(entry, lambda: entry.ended)
        return entry.final_keys()

    def _ask(self, call: str, keys: dict[str, Any]) -> Entry:
        line, entry = self._book.open(call, keys)
        self._output += line
        self._writable()
        return entry

    async def _until(self, entry: Entry, true: Callable[[], object]) -> None:
        while not true():
            waiter = self._loop.create_future()
            entry.waiters.append(waiter)
            await waiter

    def _readable(self) -> None:
        try:
            alive = self._book.receive(self._socket)
        except BlockingIOError:
            return
        if not alive:
            self._loop.remove_reader(self._socket.fileno())

    def _writable(self) -> None:
        try:
            sent_len = self._socket.send(self._output, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent_len = 0
        except OSError:
            self._output.clear()  # the reader learns of it, with the last words of the daemon
            sent_len = 0
        del self._output[:sent_len]
        if self._output:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())


class Attempt:
    """One open initiate or respond."""

    def __init__(self, daemon: Daemon, entry: Entry) -> None:
        self._daemon = daemon
        self._entry = entry

    @property
    def id(self) -> str:
        return self._entry.id

    async def notification(self) -> str:
        """The text for the peer, as soon as there is one."""
        await self._daemon._until(self._entry, lambda: self._entry.notification or self._entry.ended)
        return self._entry.notification_or_failure()

    async def notify(self, notification: str) -> None:
        """Hand in the peer's own notification."""
        await self._daemon._call("notify", {"attempt": self.id, "notification": notification})

    async def early(self) -> Socket:
        """The socket before its proof, when early was asked for; result() still tells how it ended."""
        await self._daemon._until(self._entry, lambda: self._entry.socket or self._entry.ended)
        return self._entry.claim(blocking=False)

    async def result(self) -> Punched:
        """The end: a socket, or PunchFailed."""
        await self._daemon._until(self._entry, lambda: self._entry.ended)
        return self._entry.punched(blocking=False)

    async def cancel(self) -> None:
        """End the attempt; its result is then PunchFailed with code `cancelled`, unless it ended before."""
        await self._daemon._call("cancel", {"attempt": self.id})

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while True:
            await self._daemon._until(self._entry, lambda: self._entry.progress or self._entry.ended)
            if not self._entry.progress:
                return
            yield self._entry.progress.popleft()


class Kept:
    """A kept endpoint."""

    def __init__(self, daemon: Daemon, entry: Entry) -> None:
        self._daemon = daemon
        self._entry = entry

    @property
    def id(self) -> str:
        return self._entry.id

    async def found(self) -> Found:
        """What was found; called again, the next that differs. PunchFailed when nothing was, or nothing more will."""
        await self._daemon._until(self._entry, lambda: self._entry.found or self._entry.ended)
        return self._entry.take_found()

    async def cancel(self) -> None:
        """Let the mapping go."""
        await self._daemon._call("cancel", {"attempt": self.id})


class BlockingDaemon:
    """punchd on this host, for programs without a loop. Each call reads until it has what it waits for."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> BlockingDaemon:
        while (opened := try_open(self._path)) is None:
            time.sleep(0.01)
        self._socket = opened
        self._book = Book()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._book.close()

    def initiate(self, **keys: Unpack[InitiateKeys]) -> BlockingAttempt:
        """As Daemon.initiate."""
        return BlockingAttempt(self, self._ask("initiate", dict(keys)))

    def respond(self, notification: str, **keys: Unpack[RespondKeys]) -> BlockingAttempt:
        """As Daemon.respond."""
        return BlockingAttempt(self, self._ask("respond", dict(keys, notification=notification)))

    def endpoint(self, **keys: Unpack[EndpointKeys]) -> Found:
        """As Daemon.endpoint."""
        entry = self._ask("endpoint", dict(keys))
        self._until(lambda: entry.ended)
        return entry.take_found()

    def keep_endpoint(self, **keys: Unpack[EndpointKeys]) -> BlockingKept:
        """As Daemon.keep_endpoint."""
        return BlockingKept(self, self._ask("endpoint", dict(keys, keep=True)))

    def ping(self) -> dict[str, Any]:
        return self._call("ping", {})

    def status(self) -> dict[str, Any]:
        return self._call("status", {})

    def cancel(self, attempt: str) -> dict[str, Any]:
        return self._call("cancel", {"attempt": attempt})

    def _call(self, call: str, keys: dict[str, Any]) -> dict[str, Any]:
        entry = self._ask(call, keys)
        self._until(lambda: entry.ended)
        return entry.final_keys()

    def _ask(self, call: str, keys: dict[str, Any]) -> Entry:
        line, entry = self._book.open(call, keys)
        while line:
            try:
                line = line[self._socket.send(line, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLIN | select.POLLOUT)
            except OSError:
                break  # reading will tell, with the last words of the daemon
        return entry

    def _until(self, true: Callable[[], object]) -> None:
        while not true():
            self._wait(select.POLLIN)

    def _wait(self, for_what: int) -> None:
        poll = select.poll()
        poll.register(self._socket, for_what)
        poll.poll()
        try:
            self._book.receive(self._socket)
        except BlockingIOError:
            return


class BlockingAttempt:
    """One open initiate or respond."""

    def __init__(self, daemon: BlockingDaemon, entry: Entry) -> None:
        self._daemon = daemon
        self._entry = entry

    @property
    def id(self) -> str:
        return self._entry.id

    def notification(self) -> str:
        self._daemon._until(lambda: self._entry.notification or self._entry.ended)
        return self._entry.notification_or_failure()

    def notify(self, notification: str) -> None:
        self._daemon._call("notify", {"attempt": self.id, "notification": notification})

    def early(self) -> Socket:
        self._daemon._until(lambda: self._entry.socket or self._entry.ended)
        return self._entry.claim(blocking=True)

    def result(self) -> Punched:
        self._daemon._until(lambda: self._entry.ended)
        return self._entry.punched(blocking=True)

    def cancel(self) -> None:
        self._daemon._call("cancel", {"attempt": self.id})

    def __iter__(self) -> Iterator[Progress]:
        while True:
            self._daemon._until(lambda: self._entry.progress or self._entry.ended)
            if not self._entry.progress:
                return
            yield self._entry.progress.popleft()


class BlockingKept:
    """A kept endpoint."""

    def __init__(self, daemon: BlockingDaemon, entry: Entry) -> None:
        self._daemon = daemon
        self._entry = entry

    @property
    def id(self) -> str:
        return self._entry.id

    def found(self) -> Found:
        """As Kept.found."""
        self._daemon._until(lambda: self._entry.found or self._entry.ended)
        return self._entry.take_found()

    def cancel(self) -> None:
        self._daemon._call("cancel", {"attempt": self.id})
