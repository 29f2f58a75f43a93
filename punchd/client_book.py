"""The client's half of a connection without the waiting: requests out, replies and descriptors in.
It refuses to wait or to schedule; client.py does that, once for asyncio and once for blocking programs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import socket as Socket
from typing import Any

DEFAULT_PATH = "/tmp/punchd.socket"
LINE_MAX_LEN = 65_536
_READ_LEN = 16_384  # more is rarely there, and each read makes room for all of it
_CTRUNC = int(socket.MSG_CTRUNC)  # an operation on an IntFlag takes 2 µs

OnNotification = Callable[[str], object]


class NoDaemon(ConnectionError):
    """punchd cannot be reached, is not trusted, or went away."""


class PunchFailed(Exception):
    """The final answer was an error. `code` is one of PROTOCOL.md's table, `advice` says what would help."""

    def __init__(self, code: str, message: str, *, cause: dict[str, Any], advice: str) -> None:
        super().__init__(f"{code}: {message}" + (f" ({advice})" if advice else ""))
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of an attempt. `code` and `message` say why a technique failed when another one follows."""

    stage: str
    technique: str
    notification: str
    code: str
    message: str
    cause: dict[str, Any]
    dropped: int


@dataclass(frozen=True, slots=True)
class Punched:
    """A connected socket, proven in both directions, and how it came about."""

    socket: Socket
    technique: str
    local: str
    remote: str
    rtt_ms: float | None
    """None where it was not measured."""
    elapsed_ms: float
    tries: int = 1
    """1 where what was tried first connected."""


@dataclass(frozen=True, slots=True)
class Found:
    """How this host looks from outside."""

    descriptor: str
    """For the peers: they give it to initiate() as `peer`."""
    report: dict[str, Any]
    """Verdicts per transport beside what each server saw; see PROTOCOL.md."""


class Book:
    """The open requests of one connection; bytes and descriptors in, entries told."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._count = 0
        self._input = bytearray()
        self._fds: deque[int] = deque()
        self._lost: Exception | None = None

    def open(self, call: str, keys: dict[str, Any]) -> tuple[bytes, Entry]:
        self._count += 1
        entry = Entry(str(self._count), keys.pop("on_notification", None), failure=self._lost)
        spelt = {key.removesuffix("_"): value for key, value in keys.items() if value is not None}
        line = json.dumps({"id": entry.id, "call": call} | spelt, ensure_ascii=False).encode() + b"\n"
        if len(line) > LINE_MAX_LEN:
            raise ValueError(f"the request has {len(line)} bytes; punchd reads at most {LINE_MAX_LEN}")
        if self._lost is None:
            self._entries[entry.id] = entry
        return line, entry

    def receive(self, sock: Socket) -> bool:
        """Read once. False: nothing will come any more."""
        try:
            data, fds, flags, _ = socket.recv_fds(sock, _READ_LEN, 16, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            data, fds, flags = b"", [], 0
        self._fds.extend(fds)
        if flags & _CTRUNC:
            self._lose(OSError(errno.EMFILE, "no descriptor left to receive a punched socket"))
            return False
        if not data:
            self._lose(NoDaemon("punchd closed the connection"))
            return False
        self._input += data
        *lines, rest = self._input.split(b"\n")
        self._input = rest
        for line in lines:
            self._take(json.loads(line))
        return True

    def close(self) -> None:
        """Fail what is open and close descriptors whose lines never came."""
        self._lose(NoDaemon("this side closed the connection"))
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _take(self, reply: dict[str, Any]) -> None:
        came = Socket(fileno=self._fds.popleft()) if reply.get("fds") else None
        if reply["id"] is None:
            self._lose(_failure(reply))  # of no request of ours: the connection itself is refused
            return
        entry = self._entries.get(reply["id"])
        if entry is None:
            if came is not None:
                came.close()
            return
        if came is not None:
            entry.socket = came
        match reply["status"]:
            case "progress":
                self._progress(entry, reply)
            case "ok":
                entry.final = reply
            case _:
                entry.failure = _failure(reply)
        if entry.ended:
            del self._entries[entry.id]
        entry.wake()

    def _progress(self, entry: Entry, reply: dict[str, Any]) -> None:
        progress = Progress(
            stage=reply["stage"],
            technique=reply.get("technique", ""),
            notification=reply.get("notification", ""),
            code=reply.get("code", ""),
            message=reply.get("message", ""),
            cause=reply.get("cause", {}),
            dropped=reply.get("dropped", 0),
        )
        entry.progress.append(progress)
        if "descriptor" in reply:
            entry.found.append(Found(reply["descriptor"], reply["report"]))
        if progress.notification:
            entry.notification = progress.notification
            if entry.on_notification is not None:
                entry.on_notification(progress.notification)

    def _lose(self, error: Exception) -> None:
        self._lost = self._lost or error
        for entry in self._entries.values():
            entry.failure = self._lost
            entry.wake()
        self._entries.clear()


@dataclass(slots=True, eq=False)
class Entry:
    """What is known about one open request."""

    id: str
    on_notification: OnNotification | None
    progress: deque[Progress] = field(default_factory=deque)
    notification: str = ""
    found: deque[Found] = field(default_factory=deque)
    socket: Socket | None = None
    claimed: bool = False
    final: dict[str, Any] | None = None
    failure: Exception | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.final is not None or self.failure is not None

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    def final_keys(self) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        assert self.final is not None
        return {key: value for key, value in self.final.items() if key not in ("id", "status")}

    def notification_or_failure(self) -> str:
        if not self.notification and self.failure is not None:
            raise self.failure
        if not self.notification:
            raise LookupError("the attempt ended without a notification")
        return self.notification

    def take_found(self) -> Found:
        if self.found:
            return self.found.popleft()
        final = self.final_keys()
        return Found(final["descriptor"], final["report"])

    def claim(self, *, blocking: bool) -> Socket:
        if self.failure is not None:
            raise self.failure
        if self.socket is None:
            raise NoDaemon("punchd said ok, but sent no descriptor")
        if not self.claimed:
            self.claimed = True
            self.socket.setblocking(blocking)
        return self.socket

    def punched(self, *, blocking: bool) -> Punched:
        final = self.final_keys()
        return Punched(
            socket=self.claim(blocking=blocking),
            technique=final.get("technique", ""),
            local=final.get("local", ""),
            remote=final.get("remote", ""),
            rtt_ms=final.get("rtt_ms"),
            elapsed_ms=final.get("elapsed_ms", 0.0),
            tries=final.get("tries", 1),
        )


def _failure(reply: dict[str, Any]) -> PunchFailed:
    return PunchFailed(
        reply.get("code", ""),
        reply.get("message", ""),
        cause=reply.get("cause", {}),
        advice=reply.get("advice", ""),
    )


def socket_path(path: str | None) -> str:
    return path or os.environ.get("PUNCHD_SOCKET") or DEFAULT_PATH


def try_open(path: str) -> Socket | None:
    """A non-blocking connection to a punchd that we trust; None: its backlog is full, try again."""
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        return None
    except PermissionError:
        sock.close()
        advice = "start punchd with --group GROUP and join that group"
        raise NoDaemon(f"uid {os.getuid()} may not use {path}; {advice}") from None
    except OSError as error:
        sock.close()
        advice = "start it with `sudo punchd`, or name its socket in PUNCHD_SOCKET"
        raise NoDaemon(f"no punchd at {path} ({error.strerror}); {advice}") from None
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid not in _trusted():
        sock.close()
        raise NoDaemon(f"{path} is served by uid {uid}, not by root or you; if that is right, set PUNCHD_UID={uid}")
    return sock


def _trusted() -> set[int]:
    """In a shared folder anybody may be first to serve a path."""
    named = os.environ.get("PUNCHD_UID", "")
    return {0, os.getuid()} | ({int(named)} if named.isdecimal() else set())
