"""Runs the finding of hops for one `endpoint` request: performs its launches, feeds it what is heard, arms its timer.
Decides nothing: what to send and when it is over is core/ttl.py's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from punchd.core.ttl import LEAST, Sounding
from punchd.edge.hops import Hops
from punchd.wire.stun import encode_request
from punchd.words.addresses import Endpoint
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop, HopEvent, Launch
from punchd.words.probing import TRANSACTION_LEN


class Owner(Protocol):
    """Who is told that nothing is worth waiting for any more, or that we have failed."""

    def sounds(self) -> None: ...
    def found(self) -> None: ...
    def broke(self, error: Exception) -> None: ...


class Sounder:
    """One sounding at work. What it sends are Binding requests: a server that they reach answers or drops them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: str,
        target: Endpoint,
        *,
        expires: float,
        clock: Callable[[], float],
        owner: Owner,
        through: bool = False,
    ) -> None:
        self._loop, self._clock, self._owner = loop, clock, owner
        self._local, self._target = local, target
        self._sounding = Sounding(now=clock(), timeout_s=max(0.0, expires - clock()), through=through)
        self._edge: Hops | None = None
        self._told = False
        self._mapped: set[int] = set()
        self._request = encode_request(os.urandom(TRANSACTION_LEN))
        self._timer: asyncio.TimerHandle | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is worth waiting for any more."""
        return self._edge is None or self._sounding.settled

    @property
    def hops(self) -> list[Hop]:
        """Who has spoken so far."""
        return list(self._sounding.hops.values())

    def begin(self) -> None:
        """Without a descriptor for it, nobody knows how far it is."""
        try:
            self._edge = Hops(self._local, self._target)
        except OSError:
            return
        self._loop.add_reader(self._edge.fileno(), self._on_heard)
        self._perform(self._sounding.begin())

    def stop(self) -> None:
        """Close the sockets and hear no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._edge is not None:
            self._loop.remove_reader(self._edge.fileno())
            self._edge.close()
            self._edge = None

    def _on_heard(self) -> None:
        for event in self._edge.receive() if self._edge is not None else ():
            self._feed(event)

    def _feed(self, event: HopEvent) -> None:
        try:
            self._perform(self._sounding.step(event, self._clock()))
        except Exception as error:
            self.stop()
            self._owner.broke(error)

    def _perform(self, launches: list[Launch]) -> None:
        for launch in launches:
            self._send(launch)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._sounding.deadline
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._feed, DeadlinePassed())
        elif not self._told:
            self._told = True
            self._owner.found()

    def _send(self, launch: Launch) -> None:
        assert self._edge is not None
        try:
            self._edge.send(self._request, launch.ttl)
        except OSError:
            return  # no route, no descriptor, a firewall: a hop that is silent
        if launch.ttl >= LEAST and launch.ttl not in self._mapped:
            self._mapped.add(launch.ttl)
            self._owner.sounds()
