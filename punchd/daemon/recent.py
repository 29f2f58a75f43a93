"""What attempts and probes of the last minute tell the next one: which failed, and which ports they took at which NAT.
It forgets by itself, and asks nobody."""

from __future__ import annotations

from collections import OrderedDict, deque

from punchd.core.tally import Mark, Tally
from punchd.words.addresses import Endpoint
from punchd.words.nat import Sample
from punchd.words.probing import Observation

MINUTE_S = 60.0
PEERS_MAX = 4096
OPENINGS_MAX = 1024
SAMPLES_KEPT = 256
AIMS_LAST_S = 10.0
ASKED_MAX = 1024

Peer = tuple[int, str, str]  # user, address, and what was tried there: a transport, HOPS or TIMED
HOPS, TIMED = "hops", "timed"


class Recent:
    """Times are the caller's, in seconds, and never go back."""

    __slots__ = ("_aimed", "_asked", "_failed", "_opened", "_seen", "_steps", "_tallies")

    def __init__(self) -> None:
        self._failed: OrderedDict[Peer, tuple[int, float]] = OrderedDict()
        self._opened: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._aimed: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._asked: OrderedDict[tuple[str, Endpoint, Endpoint], Mark] = OrderedDict()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._steps: dict[tuple[str, str], int] = {}
        self._seen: OrderedDict[tuple[str, str], deque[Sample]] = OrderedDict()

    def ended(self, peer: Peer, *, ok: bool, now: float) -> None:
        """An attempt of this user to this address is over."""
        tried = self.tried(peer, now)
        self._failed.pop(peer, None)
        if not ok:
            self._failed[peer] = (tried + 1, now + MINUTE_S)
            if len(self._failed) > PEERS_MAX:
                self._failed.popitem(last=False)

    def stays(self, peer: Peer, now: float) -> None:
        """What the failures in a row led to has worked: they are remembered a minute more."""
        tried = self.tried(peer, now)
        if tried:
            self._failed[peer] = tried, now + MINUTE_S

    def tried(self, peer: Peer, now: float) -> int:
        """How many attempts in a row have failed, none of them more than a minute after the one before."""
        count, until = self._failed.get(peer, (0, now))
        return count if until > now else 0

    def opened(self, address: str, mappings: int, now: float) -> None:
        """An attempt makes so many mappings at the NAT with this public address."""
        log = self._opened.setdefault(address, deque(maxlen=OPENINGS_MAX))
        log.append((now, mappings))
        self._opened.move_to_end(address)
        while log[0][0] < now - MINUTE_S:
            log.popleft()
        if len(self._opened) > PEERS_MAX:
            self._opened.popitem(last=False)

    def taken(self, address: str, since: float) -> int:
        """How many of them since then."""
        return sum(count for at, count in self._opened.get(address, ()) if at >= since)

    def tally(self, transport: str, local: str) -> Tally:
        """Of the NAT that this address of ours is behind."""
        known = self._tallies.get((transport, local))
        if known is None:
            known = self._tallies[transport, local] = Tally()
        return known

    def maps(self, transport: str, local: str, mappings: int, now: float) -> Mark:
        """Packets of ours have made so many there. The mark is the last one's."""
        self.tally("tcp" if transport == "udp" else "udp", local).opened(0, now, beside=mappings)
        return self.tally(transport, local).opened(mappings, now)

    def sounds(self, local: str, now: float) -> None:
        """A datagram has left that makes a mapping if it gets as far as the NAT."""
        self.tally("tcp", local).opened(0, now, beside=1)
        self.tally("udp", local).opened(0, now, dying=1)

    def asks(self, transport: str, local: Endpoint, server: Endpoint, now: float) -> None:
        """A probe makes the mapping whose port it is to be told."""
        self._asked[transport, local, server] = self.maps(transport, local.address, 1, now)
        if len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)

    def saw(self, observation: Observation, at: float) -> None:
        """A probe's mapping got this public port, then if not even its making was told."""
        tally = self.tally(observation.transport, observation.local.address)
        made = self._asked.get((observation.transport, observation.local, observation.server))
        tally.saw(observation.public.port, made or tally.at(at))

    def counts(self, transport: str, local: str, step: int) -> None:
        """That NAT counts, by this step; 0: it does not."""
        self._steps[transport, local] = step

    def step(self, transport: str, local: str) -> int:
        """By which that NAT counts, if it is known to."""
        return self._steps.get((transport, local), 0)

    def ahead(self, transport: str, local: str, port: int, now: float) -> tuple[int, int, int] | None:
        """How many mappings that NAT makes before the one with this port, or one further on, and which port that is.

        None: who knows (core/tally.py).
        """
        step, tally = self.step(transport, local), self.tally(transport, local)
        port = port or (tally.beyond(step, now) if step else 0)
        ahead = tally.ahead(port, step, now) if step else None
        return None if ahead is None else (*ahead, port)

    def aims(self, transport: str, address: str, port: int, now: float) -> None:
        """A peer has been asked to bring its NAT to this port."""
        self._aimed[transport, address] = now, port
        self._aimed.move_to_end((transport, address))
        if len(self._aimed) > PEERS_MAX:
            self._aimed.popitem(last=False)

    def aimed(self, transport: str, address: str, now: float) -> int:
        """Where that was a short time ago; 0: nowhere."""
        at, port = self._aimed.get((transport, address), (now, 0))
        return port if now - at < AIMS_LAST_S else 0

    def observed(self, observation: Observation) -> None:
        """A probe has seen a mapping of its own."""
        key = observation.transport, observation.public.address
        log = self._seen.setdefault(key, deque(maxlen=SAMPLES_KEPT))
        log.append(observation.sample)
        self._seen.move_to_end(key)
        if len(self._seen) > PEERS_MAX:
            self._seen.popitem(last=False)

    def samples(self, transport: str, address: str, since_ms: float) -> list[Sample]:
        """The mappings that probes have seen since then, each once."""
        log = self._seen.get((transport, address), ())
        return list({one.public_port: one for one in log if one.at_ms >= since_ms}.values())
