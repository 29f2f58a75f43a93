"""What attempts and probes of the last minute tell the next one: which failed, and which ports they took at which NAT.
It forgets by itself, and asks nobody."""

from __future__ import annotations

from collections import OrderedDict, deque

from punchd.core.tally import Tally
from punchd.words.effects import Locate
from punchd.words.nat import Sample
from punchd.words.probing import Observation

MINUTE_S = 60.0
PEERS_MAX = 4096
OPENINGS_MAX = 1024
SAMPLES_KEPT = 256
AIMS_LAST_S = 10.0

Peer = tuple[int, str, str]  # user, address, and what was tried there: a transport, or HOPS
HOPS = "hops"


class Recent:
    """Times are the caller's, in seconds, and never go back."""

    __slots__ = ("_aimed", "_failed", "_opened", "_seen", "_steps", "_tallies")

    def __init__(self) -> None:
        self._failed: OrderedDict[Peer, tuple[int, float]] = OrderedDict()
        self._opened: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._aimed: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
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
        return self._tallies.setdefault((transport, local), Tally())

    def maps(self, transport: str, local: str, mappings: int, now: float) -> None:
        """Packets of ours have made so many there. No transport: perhaps."""
        for other in ("tcp", "udp"):
            tally = self.tally(other, local)
            (tally.opened if other == transport else tally.opened_beside)(mappings, now)

    def saw(self, observation: Observation, at: float) -> None:
        """A probe's mapping got this public port then."""
        for transport in ("tcp", "udp"):
            tally = self.tally(transport, observation.local.address)
            (tally.saw if transport == observation.transport else tally.saw_beside)(observation.public.port, at)

    def counts(self, transport: str, local: str, step: int) -> None:
        """That NAT counts, by this step; 0: it does not."""
        self._steps[transport, local] = step

    def step(self, transport: str, local: str) -> int:
        """By which that NAT counts, if it is known to."""
        return self._steps.get((transport, local), 0)

    def ahead(self, transport: str, local: str, asked: Locate, now: float) -> tuple[int, int] | None:
        """How many mappings that NAT makes before the one with this port (core/tally.py); None: who knows."""
        step = self.step(transport, local)
        return self.tally(transport, local).ahead(asked.port, step, now, surely=asked.surely) if step else None

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
