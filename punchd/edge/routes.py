"""Remembers from which local address this host sends to a target, for as long as nothing that decides it has changed.
Chooses no route: the kernel is asked once per target, and asked again after each change that it announces.

rtnetlink(7) tells its multicast groups of links, addresses, routes and rules before the call that changed them
returns, so one empty read before each answer is enough: what was remembered is never older than the last change.
"""

from __future__ import annotations

import errno
import socket

_RTMGRP_LINK, _RTMGRP_ADDRESS, _RTMGRP_ROUTE, _RTMGRP_RULE = 0x1, 0x10, 0x40, 0x80
_ROOM = 65_536
_TARGETS_MAX = 4096


class Routes:
    """One netlink socket for the whole process; needs no privilege."""

    __slots__ = ("_changes", "_known")

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._changes = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._changes.bind((0, _RTMGRP_LINK | _RTMGRP_ADDRESS | _RTMGRP_ROUTE | _RTMGRP_RULE))
        self._known: dict[str, str] = {}

    def source_address(self, target: str) -> str:
        """The local address towards `target`; OSError ENETUNREACH without a route."""
        if self._changed() or len(self._known) >= _TARGETS_MAX:
            self._known.clear()
        known = self._known.get(target)
        if known is None:
            known = self._known[target] = _asked(target)
        return known

    def close(self) -> None:
        """Give the descriptor back."""
        self._changes.close()

    def _changed(self) -> bool:
        changed = False
        while True:
            try:
                self._changes.recv(_ROOM)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # else so much has changed that some of it was not told
                    raise
            changed = True


def _asked(target: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
