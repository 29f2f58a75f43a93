"""Runs the finding of whether mappings outlive ICMP errors for one `endpoint` request: sends, hears, arms its timer.
Decides nothing: what to send and what it proves is core/mortality.py's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from punchd.core.mortality import Mortality
from punchd.daemon.sounder import Owner
from punchd.edge.mapping import Mapping
from punchd.wire.stun import INDICATION, decode_answer, encode_request
from punchd.words.addresses import Endpoint
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop
from punchd.words.mortality import AskFor, Died, Heard, MortalityEffect, MortalityEvent, Sounded
from punchd.words.probing import TRANSACTION_LEN


class Mourner:
    """One finding at work, on two ports of its own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: str,
        server: Endpoint,
        *,
        expires: float,
        clock: Callable[[], float],
        owner: Owner,
    ) -> None:
        self._loop, self._clock, self._owner = loop, clock, owner
        self._local, self._server = local, server
        timeout_s = max(0.0, expires - clock())
        self._finding = Mortality(now=clock(), timeout_s=timeout_s, transactions=lambda: os.urandom(TRANSACTION_LEN))
        self._mappings: list[Mapping] = []
        self._sounded = self._mapped = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is worth waiting for any more."""
        return not self._mappings

    @property
    def outlives(self) -> bool | None:
        """What has been found; None: not known."""
        return self._finding.outlives

    def begin(self) -> None:
        """Without descriptors for it, nobody knows."""
        try:
            self._mappings.append(Mapping(self._local, self._server))
            self._mappings.append(Mapping(self._local, self._server))
        except OSError:
            self.stop()
            return
        for mapping in self._mappings:
            self._loop.add_reader(mapping.fileno(), self._on_readable, mapping)
        try:
            self._mappings[1].send(INDICATION)  # its mapping must not come between two samples of a NAT that counts
            self._owner.sounds()
        except OSError:
            pass
        self._feed(DeadlinePassed())

    def sounded(self, hops: Iterable[Hop]) -> None:
        """The way to the server is known as well as it will be."""
        if not self._sounded and not self.settled:
            self._sounded = True
            self._feed(Sounded(tuple(hops)))

    def stop(self) -> None:
        """Close the sockets and hear no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for mapping in self._mappings:
            self._loop.remove_reader(mapping.fileno())
            mapping.close()
        self._mappings = []

    def _on_readable(self, mapping: Mapping) -> None:
        second = mapping is self._mappings[1]
        died, came = mapping.receive()
        if died and not second:
            self._feed(Died())
        for message in came:
            answer = decode_answer(message)
            if answer is not None and not self.settled:
                self._feed(Heard(answer, second))

    def _feed(self, event: MortalityEvent) -> None:
        try:
            self._perform(self._finding.step(event, self._clock()))
        except Exception as error:
            self.stop()
            self._owner.broke(error)

    def _perform(self, effects: list[MortalityEffect]) -> None:
        for effect in effects:
            self._send(effect)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._finding.deadline
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._feed, DeadlinePassed())
        elif not self.settled:
            self.stop()
            self._owner.found()

    def _send(self, effect: MortalityEffect) -> None:
        first, second = self._mappings
        if not self._mapped:
            self._mapped = True
            self._owner.sounds()
        try:
            if not isinstance(effect, AskFor):
                first.send(INDICATION, ttl=effect.ttl)
            elif effect.port is None:
                first.send(encode_request(effect.transaction))
            else:
                second.send(encode_request(effect.transaction, port=effect.port))
        except OSError:
            pass  # no route, a firewall: silence, which proves nothing
