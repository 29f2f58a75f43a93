"""A UDP socket of one mapping at one server: requests, answers, and datagrams that are to die on the way.
Draws no conclusion and repeats nothing.

Time exceeded comes by the error queue (ip(7), IP_RECVERR), without privilege. Why there is an epoll descriptor, and
what is read from the queue: edge/hops.py.
"""

from __future__ import annotations

import select
import socket

from punchd.edge.hops import IP_RECVERR, refused
from punchd.words.addresses import Endpoint

_MESSAGE_MAX_LEN = 1500
_READS_MAX = 64
_TTL = 64


class Mapping:
    """One socket, at a port that the kernel chooses. OSError: EMFILE, ENETUNREACH, EINVAL."""

    def __init__(self, local: str, server: Endpoint) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            self._sock.bind((local, 0))
            self._sock.connect((server.address, server.port))
            self._epoll = select.epoll()
        except OSError:
            self._sock.close()
            raise
        self._epoll.register(self._sock, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def send(self, data: bytes, *, ttl: int = _TTL) -> None:
        """One datagram. OSError: EPERM, ENETUNREACH, ENOBUFS."""
        self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        self._sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ERROR
        )  # an earlier one's; it would become this one's failure
        self._sock.send(data)

    def receive(self) -> tuple[bool, list[bytes]]:
        """Whether a datagram has died on its way since, and what has come."""
        died, came = False, []
        while (error := refused(self._sock)) is not None:
            died = died or error[1]
        for _ in range(_READS_MAX):
            try:
                came.append(self._sock.recv(_MESSAGE_MAX_LEN))
            except BlockingIOError:
                break
            except OSError:
                continue  # an error that has come meanwhile; the queue keeps it
        return died, came

    def close(self) -> None:
        self._epoll.close()
        self._sock.close()
