"""The daemon's front door: accepts callers on the listening Unix socket and keeps their connections.
It refuses to decide who may call; it asks, and turns away whom it is told to.

A hang-up is seen through one epoll descriptor for all connections, which waits for EPOLLHUP and nothing else:
a connection that we do not read, or that is half closed and so readable for ever, still tells us that way.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable

from punchd.edge.connection import Callbacks, Connection, Credentials
from punchd.edge.sockpath import Listener

ACCEPTS_PER_WAKE = 32
ACCEPT_PAUSE_S = 0.25
"""Until the next accept when there was no descriptor for one; a connection that closes ends the pause."""

_SO_PEERGROUPS = 59  # asm-generic/socket.h; absent from Python's socket module
_GROUPS_MAX_LEN = 1024  # Python's getsockopt takes no more: 256 groups
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Admit = Callable[[Credentials], bytes | None]
"""None admits; a line is sent to the caller, who is then closed."""


class ControlServer:
    """Owns the listener and every connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        *,
        admit: Admit,
        callbacks: Callbacks,
    ) -> None:
        self.connections: dict[int, Connection] = {}
        """By descriptor."""
        self._loop = loop
        self._listener = listener
        self._admit = admit
        self._callbacks = callbacks
        self._count = 0
        self._hangups = select.epoll()
        self._pause: asyncio.TimerHandle | None = None
        self._accepting = True
        loop.add_reader(self._hangups.fileno(), self._hung_up)
        loop.add_reader(listener.socket.fileno(), self._accept)

    def stop_accepting(self) -> None:
        """Close the listener and remove its path; connections stay."""
        if not self._accepting:
            return
        self._accepting = False
        if self._pause is None:
            self._loop.remove_reader(self._listener.socket.fileno())
        else:
            self._pause.cancel()
            self._pause = None
        self._listener.close()

    def close(self) -> None:
        """Close everything at once. Finish the connections first to have their output delivered."""
        self.stop_accepting()
        for connection in list(self.connections.values()):
            connection.close()
        if not self._hangups.closed:
            self._loop.remove_reader(self._hangups.fileno())
            self._hangups.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                sock, _ = self._listener.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                self._pause_accepting()
                return
            sock.setblocking(False)
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        credentials = _credentials(sock)
        refusal = self._admit(credentials)
        if refusal is not None:
            _turn_away(sock, refusal)
            return
        self._count += 1
        self._hangups.register(sock.fileno(), 0)  # EPOLLHUP comes unasked
        self.connections[sock.fileno()] = Connection(
            self._loop,
            sock,
            number=self._count,
            credentials=credentials,
            callbacks=self._callbacks,
            forget=self._forget,
        )

    def _pause_accepting(self) -> None:
        """The backlog stays readable, so waiting for it would spin."""
        self._loop.remove_reader(self._listener.socket.fileno())
        self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._loop.add_reader(self._listener.socket.fileno(), self._accept)

    def _hung_up(self) -> None:
        for fd, _ in self._hangups.poll(0):
            connection = self.connections.get(fd)
            if connection is not None:
                connection.close()

    def _forget(self, fd: int) -> None:
        """A connection closes; its descriptor is still open."""
        self._hangups.unregister(fd)
        del self.connections[fd]
        if self._pause is not None:
            self._loop.call_soon(self._resume_accepting)


def _turn_away(sock: socket.socket, line: bytes) -> None:
    with sock:
        try:
            sock.send(line, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # gone already: nobody is left to be told


def _credentials(sock: socket.socket) -> Credentials:
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX_LEN)
    except OSError:
        raw = b""
    return Credentials(pid, uid, gid, struct.unpack(f"{len(raw) // 4}I", raw))
