"""The sockets of a probe: one local port, and over it one server or several.
Understands no message: bytes go out, and bytes come in with the end that sent them.

A probe's port is shared on purpose: the punch will use it while the mapping is still kept. UDP sockets bear
SO_REUSEPORT, which only sockets of the same user can join (socket(7)), and a connected one gets its peer's datagrams
(udp.c, compute_score); TCP sockets bear SO_REUSEADDR, as those of edge/sockets.py do.
"""

from __future__ import annotations

import errno
import os
import socket

from punchd.words.addresses import Endpoint

_DATAGRAM_MAX_LEN = 1500
_CALLS_MAX = 8
_KIND = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_SHARE = {"tcp": socket.SO_REUSEADDR, "udp": socket.SO_REUSEPORT}


class Datagrams:
    """A bound UDP port that talks to any number of servers. OSError: EADDRINUSE."""

    def __init__(self, local: tuple[str, int]) -> None:
        self.local = local
        self.sock = _bound("udp", local)

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, data: bytes, server: Endpoint) -> None:
        """One datagram. OSError: what the kernel says against it."""
        self.sock.sendto(data, (server.address, server.port))

    def receive(self) -> tuple[bytes, Endpoint] | None:
        """The next datagram and its sender; None when none waits."""
        try:
            data, source = self.sock.recvfrom(_DATAGRAM_MAX_LEN)
        except (BlockingIOError, ConnectionRefusedError):
            return None
        return data, Endpoint(*source)

    def close(self) -> None:
        self.sock.close()


class Anchor:
    """A TCP port that is held while connections from it come and go; it does not connect, and listens when told."""

    def __init__(self, local: tuple[str, int]) -> None:
        self.local = local
        self.sock = _bound("tcp", local)

    def fileno(self) -> int:
        return self.sock.fileno()

    def listen(self) -> None:
        """From now on others may call; no further connection can be made from the port. OSError: EADDRINUSE."""
        self.sock.listen(_CALLS_MAX)

    def called(self) -> Endpoint | None:
        """Who has connected, and is turned away again; None when nobody has."""
        try:
            sock, source = self.sock.accept()
        except OSError:
            return None
        sock.close()
        return Endpoint(*source)

    def close(self) -> None:
        self.sock.close()


class Line:
    """A TCP connection to a server from a port that others share. OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH."""

    def __init__(self, local: tuple[str, int], server: Endpoint) -> None:
        self.server = server
        self.sock = _bound("tcp", local)
        result = self.sock.connect_ex((server.address, server.port))
        if result not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise OSError(result, os.strerror(result))

    def fileno(self) -> int:
        return self.sock.fileno()

    def failure(self) -> int:
        """The pending errno, 0 if there is none."""
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def send(self, data: bytes) -> None:
        """A message so small that an empty buffer takes it whole. OSError: the connection is broken."""
        if self.sock.send(data, socket.MSG_NOSIGNAL) < len(data):
            raise OSError(errno.ENOBUFS, "the server takes no more")

    def receive(self, limit: int) -> bytes | None:
        """What has come, b"" at the end; None when nothing waits. OSError: the connection is broken."""
        try:
            return self.sock.recv(limit)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.sock.close()


def open_port(transport: str, local: tuple[str, int]) -> Datagrams | Anchor:
    """Take a port that nobody holds or shares. OSError: EADDRINUSE."""
    with socket.socket(socket.AF_INET, _KIND[transport] | socket.SOCK_CLOEXEC) as probe:
        if transport == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME-WAIT is no holder
        probe.bind(local)
    return Datagrams(local) if transport == "udp" else Anchor(local)


def _bound(transport: str, local: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, _KIND[transport] | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SHARE[transport], 1)
        sock.bind(local)
    except OSError:
        sock.close()
        raise
    return sock
