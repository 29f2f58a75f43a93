"""Sockets that are none of punchd's, whose packets expire on the way: what traceroute would be on this host.

It refuses raw sockets: the kernel itself must bring each time-exceeded home to the socket it quotes.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from types import TracebackType

from punchd.lab.namespace import Namespace

IP_RECVERR, SO_RCVBUFFORCE = 11, 33  # linux/in.h, asm-generic/socket.h
_ORIGIN_ICMP = 2  # linux/errqueue.h, SO_EE_ORIGIN_ICMP
_TIME_EXCEEDED = 11
PATIENCE_S = 1.0


class Tracer:
    """A UDP socket whose datagrams die two hops away; errors come back to its error queue."""

    def __init__(self, place: Namespace, port: int, target: tuple[str, int]) -> None:
        self.sock = place.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        self.sock.setblocking(False)
        self.sock.bind(("0.0.0.0", port))
        self._target = target

    def __enter__(self) -> Tracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self) -> None:
        while True:
            try:
                self.sock.sendto(b"trace", self._target)
            except OSError as error:
                # of an earlier datagram: told here once, and in the error queue besides
                if error.errno not in (errno.EHOSTUNREACH, errno.ECONNREFUSED):
                    raise
            else:
                return

    def errors(self) -> int:
        """How many time-exceeded have arrived since the last time."""
        count = 0
        while True:
            try:
                _, ancillary, _, _ = self.sock.recvmsg(64, 512, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return count
            for level, kind, data in ancillary:
                # struct sock_extended_err: errno, origin, type
                _, origin, icmp_type = struct.unpack_from("=IBB", data)
                count += (level, kind) == (socket.IPPROTO_IP, IP_RECVERR) and (origin, icmp_type) == (
                    _ORIGIN_ICMP,
                    _TIME_EXCEEDED,
                )

    def round_s(self) -> float | None:
        """How long one datagram's time-exceeded takes; None if it does not come."""
        self.errors()
        start = time.monotonic()
        self.send()
        poll = select.poll()
        poll.register(self.sock, 0)  # POLLERR comes unasked
        while (left_s := start + PATIENCE_S - time.monotonic()) > 0:
            poll.poll(left_s * 1000)
            if self.errors():
                return time.monotonic() - start
        return None


def dies_of_time_exceeded(place: Namespace, port: int, target: tuple[str, int]) -> bool:
    """Whether a foreign connect() whose SYN expires on the way ends by that error, as Linux has it."""
    with place.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        sock.settimeout(PATIENCE_S)
        sock.bind(("0.0.0.0", port))
        try:
            sock.connect(target)
        except TimeoutError:
            return False
        except OSError as error:
            return error.errno == errno.EHOSTUNREACH
        return False
