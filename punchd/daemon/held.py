"""What the driver holds for one pair: its 4-tuple and its descriptors.
Opens and closes nothing by itself."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from punchd.daemon.fans import Fan


class _Rest(TypedDict):
    remote: str
    remote_port: int | None
    protocol: int


class Held:
    """A pair's hold on this host. `sock` is the one that will be handed over, once there is one.

    A fan has no ports before one of its lanes is adopted; they are 0. `watched`: the loop was asked to watch `sock`.
    """

    __slots__ = (
        "fan", "given", "listener", "local", "pair", "remote", "sock", "stream", "stubborn", "tag", "token", "watched",
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
        self.given = self.stubborn = self.watched = False

    @property
    def flow_local(self) -> tuple[str, int]:
        return self.local

    @property
    def flow_rest(self) -> _Rest:
        protocol = socket.IPPROTO_TCP if self.stream else socket.IPPROTO_UDP
        return _Rest(remote=self.remote[0], remote_port=self.remote[1], protocol=protocol)

    @property
    def flow_any_port(self) -> _Rest:
        """For segments of the peer that come from another port than they should."""
        return self.flow_rest | {"remote_port": None}

    @property
    def local_name(self) -> str:
        return f"{self.local[0]}:{self.local[1]}"

    @property
    def remote_name(self) -> str:
        return f"{self.remote[0]}:{self.remote[1]}"
