"""Everything that leaves one host and is not for itself: the judge of "sends nothing".

It refuses filters and rings: a plain packet socket and the lab's own parser see it all.
"""

from __future__ import annotations

import socket
from types import TracebackType

from punchd.lab.namespace import Namespace
from punchd.lab.wire import Packet, parse

_ETH_P_ALL = 3  # packet(7): a tap bound to one protocol never sees what goes out
_SO_RCVBUFFORCE = 33


class Tap:
    """Listens on eth0 for the length of a `with` block."""

    def __init__(self, place: Namespace) -> None:
        self._tap = place.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        with place.enter():
            self._tap.bind(("eth0", _ETH_P_ALL))
        self._tap.setblocking(False)

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tap.close()

    def packets(self) -> list[Packet]:
        """What has left since the last time, in order."""
        found = []
        while True:
            try:
                data, address = self._tap.recvfrom(65536)
            except BlockingIOError:
                return found
            packet = parse(data)
            if address[2] == socket.PACKET_OUTGOING and packet is not None:
                found.append(packet)
