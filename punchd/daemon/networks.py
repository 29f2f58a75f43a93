"""Remembers what was found of a network's NATs, so that an attempt there need not guess, or believe.
Measures nothing, and forgets after a while: people carry their machines about, providers rebuild their nets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from punchd.edge.gateway import Network, network_of

LOOK_S = 3.0  # how long an address is taken to be in the network in which it was seen
NETWORKS_MAX = 64
PUBLICS_MAX = 256


class Networks:
    """The TTL that clears the own NATs, and the addresses outside, for each network that this host was in lately."""

    __slots__ = ("_clock", "_found", "_life_s", "_look", "_publics", "_seen")

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
        self._publics: dict[tuple[Network, str], None] = {}
        """Where servers saw this host, the oldest first. One that is another's by now does no harm (decision 0024), and
        who keeps an endpoint for weeks is not to be asked anew, so they have no end."""
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

    def show(self, local: str, public: str) -> None:
        """A server saw this host as `public` while it was `local`."""
        network = self._look(local) if self._life_s else None
        if network is None:
            return
        self._publics.pop((network, public), None)
        self._publics[network, public] = None
        if len(self._publics) > PUBLICS_MAX:
            del self._publics[next(iter(self._publics))]

    def shows(self, local: str, public: str) -> bool:
        """Whether one did in the network where this host is `local` now."""
        network = self._look(local) if self._publics else None
        return network is not None and (network, public) in self._publics

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
