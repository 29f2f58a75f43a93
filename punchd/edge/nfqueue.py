"""The queue of ICMP time-exceeded errors that quote a punch port: drop those of open attempts, pass all others.
Knows no attempt: it asks the flow table by the quoted 4-tuple."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from netfilterqueue import NetfilterQueue, Packet

_FIRST_QUEUE = 21000
_TRIES = 64
VERDICTS_PER_WAKE = 64
"""Then others get their turn: under a flood the library itself would read for ever."""

_LENGTH = 4096
_RANGE = 60 + 8 + 60 + 8  # bytes copied to us: outer header, ICMP, quoted header, quoted ports

_NFNL_SUBSYS_QUEUE = 3
_NFQNL_MSG_CONFIG = 2
_NFQA_CFG_MASK, _NFQA_CFG_FLAGS = 4, 5
_NFQA_CFG_F_FAIL_OPEN = 1
_NLM_F_REQUEST = 1


class IcmpQueue:
    """Binds the first free queue number; `ours(packet)` says whether a packet quotes an open attempt.

    Raises OSError: EPERM without CAP_NET_ADMIN, EADDRINUSE when all numbers tried are taken.
    """

    def __init__(self, ours: Callable[[bytes], bool]) -> None:
        self._ours = ours
        self._queue = NetfilterQueue()
        self.number = self._bind()
        self.dropped = self.passed = 0
        self._left = 0
        _fail_open(self._queue.get_fd(), self.number)

    def fileno(self) -> int:
        """Readable when a verdict is wanted."""
        return int(self._queue.get_fd())

    def read(self) -> None:
        """Give the verdicts that wait, at most VERDICTS_PER_WAKE; the descriptor stays readable if more do."""
        self._left = VERDICTS_PER_WAKE
        try:
            self._queue.run(block=False)
        except _EnoughError:
            pass

    def close(self) -> None:
        """Unbind; packets on their way pass by the rule's bypass flag."""
        self._queue.unbind()

    def _bind(self) -> int:
        for number in range(_FIRST_QUEUE, _FIRST_QUEUE + _TRIES):
            try:
                self._queue.bind(number, self._judge, max_len=_LENGTH, range=_RANGE)
            except OSError as error:
                if not _net_admin():
                    raise OSError(errno.EPERM, f"NFQUEUE {number}: {error}") from error
                continue  # another process holds this number; the library says no more than "failed"
            return number
        raise OSError(errno.EADDRINUSE, f"NFQUEUE {_FIRST_QUEUE} to {_FIRST_QUEUE + _TRIES - 1} are all taken")

    def _judge(self, packet: Packet) -> None:
        if self._ours(packet.get_payload()):
            self.dropped += 1
            packet.drop()
        else:
            self.passed += 1
            packet.accept()
        self._left -= 1
        if not self._left:
            raise _EnoughError  # the library's only way out of its loop; this packet has its verdict


class _EnoughError(Exception):
    """Leaves the library's loop; nobody else sees it."""


def _net_admin() -> bool:
    """Whether this process holds CAP_NET_ADMIN (bit 12 of the effective set)."""
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & (1 << 12))


def _fail_open(fd: int, number: int) -> None:
    """When the queue is full its packets pass (NFQA_CFG_F_FAIL_OPEN); the library has no call for it.

    linux/netfilter/nfnetlink_queue.h: a config message with mask and flags, both big-endian.
    """
    attributes = b"".join(
        struct.pack("=HH", 8, kind) + struct.pack("!I", _NFQA_CFG_F_FAIL_OPEN)
        for kind in (_NFQA_CFG_MASK, _NFQA_CFG_FLAGS)
    )
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, number) + attributes
    kind = (_NFNL_SUBSYS_QUEUE << 8) | _NFQNL_MSG_CONFIG
    with socket.socket(fileno=socket.dup(fd)) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST, 0, 0) + body)
