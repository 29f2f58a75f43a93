"""What the driver holds for one pair: its 4-tuple and its descriptors.
Opens and closes nothing by itself."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import chain

from punchd.core.lanes import Lane
from punchd.core.tally import Mark
from punchd.edge import native
from punchd.words.events import Event

Report = Callable[[Event], None]


class Fan:
    """What a fan holds until one of its lanes is adopted."""

    __slots__ = ("caller", "mapped", "ours", "ports", "report", "shots", "socks")

    def __init__(self, *, ours: bool, caller: int, report: Report) -> None:
        self.ours, self.caller, self.report = ours, caller, report
        self.ports: dict[int, bool] = {}
        """Local ports that were tried, and whether they are ours to use."""
        self.shots: dict[tuple[Lane, ...], tuple[native.Shots, int]] = {}
        """Bursts whose first so many lanes are watched."""
        self.mapped: dict[Lane, Mark] = {}
        """Lanes that have a mapping, and which one."""
        self.socks: dict[int, socket.socket] = {}

    def lanes(self) -> Iterator[Lane]:
        """All that segments were sent on."""
        return chain.from_iterable(shots.lanes(count) for shots, count in self.shots.values())


class Held:
    """A pair's hold on this host. `sock` is the one that will be handed over, once there is one.

    A fan has no ports before one of its lanes is adopted; they are 0. `watched`: the loop was asked to watch `sock`.
    `fresh`: no option of `sock` was ever changed. `given_at`: when the application got the socket. `mapped`: a packet
    of its 4-tuple has left.
    """

    __slots__ = (
        "fan", "flow", "fresh", "given_at", "listener", "local", "mapped", "pair", "remote", "sock", "stream",
        "stubborn", "tag", "token", "watched",
    )  # fmt: skip

    def __init__(
        self, pair: int, token: int, local: str, local_port: int, remote: str, remote_port: int, *, stream: bool
    ) -> None:
        self.pair, self.token, self.stream = pair, token, stream
        self.local, self.remote = (local, local_port), (remote, remote_port)
        self.sock: socket.socket | None = None
        self.listener: socket.socket | None = None
        self.tag: bytes | None = None
        self.fan: Fan | None = None
        self.flow: native.Flow | None = None
        self.given_at: float | None = None
        self.fresh = self.mapped = self.stubborn = self.watched = False

    @property
    def transport(self) -> str:
        return "tcp" if self.stream else "udp"

    def aim(self) -> native.Flow:
        """Its 4-tuple, now that it has one."""
        self.flow = native.Flow(
            self.local, self.remote, protocol=socket.IPPROTO_TCP if self.stream else socket.IPPROTO_UDP
        )
        return self.flow

    @property
    def local_name(self) -> str:
        return f"{self.local[0]}:{self.local[1]}"

    @property
    def remote_name(self) -> str:
        return f"{self.remote[0]}:{self.remote[1]}"
