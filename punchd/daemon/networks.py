"""Remembers what was found of a network's NATs, so that an attempt there need not guess.
Measures nothing, and forgets after a while: people carry their machines about, providers rebuild their nets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from punchd.edge.gateway import Network, network_of

LOOK_S = 3.0  # how long an address is taken to be in the network in which it was seen
NETWORKS_MAX = 64


class Networks:
    """The TTL that clears the own NATs, for each network that this host was in lately."""

    __slots__ = ("_clock", "_found", "_life_s", "_look", "_seen")

    def __init__(
        self,
        *,
        life_s: float,
        look: Callable[[str], Network | None] = network_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._life_s, self._look, self._clock = life_s, look, clock
        self._found: dict[Network, tuple[int, float]] = {}
        """The TTL, and when it is to be forgotten; the oldest first."""
        self._seen: dict[str, tuple[Network | None, float]] = {}

    def learn(self, local: str, ttl: int | None) -> None:
        """What was found where this host is `local`; None is no news."""
        network = self._look(local)
        if network is None or ttl is None or not self._life_s:
            return
        now = self._clock()
        self._seen[local] = network, now + LOOK_S
        self._found.pop(network, None)
        self._found[network] = ttl, now + self._life_s
        if len(self._found) > NETWORKS_MAX:
            del self._found[next(iter(self._found))]

    def ttl(self, local: str) -> int | None:
        """What was found there, if anything was and it is not too old. Reads no file while nothing is remembered."""
        if not self._found:
            return None
        now = self._clock()
        network, until = self._seen.get(local, (None, 0.0))
        if until <= now:
            network = self._look(local)
            self._seen[local] = network, now + LOOK_S
        if network not in self._found:
            return None
        ttl, until = self._found[network]
        return ttl if until > now else None
