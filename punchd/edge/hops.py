"""Datagrams that are to die on the way, and who says that they did: one UDP socket for each TTL, no privilege.
Draws no conclusion and repeats nothing.

A time-exceeded need not quote more than a datagram's ports (RFC 792), so a socket of its own tells each TTL apart.
The error queue names the sender (ip(7), IP_RECVERR). An epoll descriptor stands for all sockets: uvloop takes a socket
with a waiting error for a broken one, and forgets it.
"""

from __future__ import annotations

import select
import socket
import struct

from punchd.words.addresses import Endpoint
from punchd.words.hops import HopHeard

IP_RECVERR = 11  # linux/in.h; Python has no name for it
_ERROR = struct.Struct("=IBBBxII")  # linux/errqueue.h, struct sock_extended_err
_OFFENDER = struct.Struct("=HH4s")  # the sockaddr_in behind it
_ORIGIN_ICMP = 2
_EXCEEDED = 11  # any other error of the target's own says that a datagram has arrived
_ROOM, _ANCILLARY_ROOM = 64, 512


class Hops:
    """The sockets towards one target. `fileno` is readable when `receive` has something."""

    def __init__(self, local: str, target: Endpoint) -> None:
        self._local, self._target = local, target
        self._sockets: dict[int, socket.socket] = {}
        self._ttls: dict[int, int] = {}
        self._epoll = select.epoll()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def send(self, data: bytes, ttl: int) -> None:
        """One datagram. OSError: ENETUNREACH, EMFILE, EPERM, EINVAL (the target is no address)."""
        sock = self._sockets.get(ttl) or self._open(ttl)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # an earlier one's; it would become this one's failure
        sock.send(data)

    def receive(self) -> list[HopHeard]:
        """All that has been heard since."""
        heard = []
        for fileno, _ in self._epoll.poll(0):
            ttl = self._ttls[fileno]
            sock = self._sockets[ttl]
            while (error := refused(sock)) is not None:
                sender, died = error
                if died or sender == self._target.address:
                    heard.append(HopHeard(ttl, sender, arrived=sender == self._target.address))
            if _answered(sock):
                heard.append(HopHeard(ttl, self._target.address, arrived=True))
        return heard

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._epoll.close()

    def _open(self, ttl: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.bind((self._local, 0))
            sock.connect((self._target.address, self._target.port))
        except OSError:
            sock.close()
            raise
        self._epoll.register(sock, select.EPOLLIN)
        self._sockets[ttl], self._ttls[sock.fileno()] = sock, ttl
        return sock


def refused(sock: socket.socket) -> tuple[str, bool] | None:
    """Who sent the next waiting error, and whether it says that the TTL was used up; None when none waits."""
    try:
        _, ancillary, _, _ = sock.recvmsg(_ROOM, _ANCILLARY_ROOM, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR) and len(data) >= _ERROR.size + _OFFENDER.size:
            _, origin, type_, _, _, _ = _ERROR.unpack_from(data)
            family, _, sender = _OFFENDER.unpack_from(data, _ERROR.size)
            if origin == _ORIGIN_ICMP and family == socket.AF_INET:
                return socket.inet_ntoa(sender), type_ == _EXCEEDED
    return "", False


def _answered(sock: socket.socket) -> bool:
    try:
        sock.recv(_ROOM)
    except OSError:
        return False
    return True
