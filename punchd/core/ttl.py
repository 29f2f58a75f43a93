"""Finds how many hops clear the own NATs and stay short of a peer's, from who says that datagrams died on the way.
Opens no hole; what no router says remains unknown, and a retry climbs.

Theory of operation
-------------------
One datagram per TTL, 1 to 8, leaves at once towards a server; those that nobody answers leave once more after 0.4 s.
A router where one dies sends time-exceeded (RFC 1812, section 5.3.1):

    a private or shared address, or our own public one    that router is inside, or is the outermost NAT itself
    any other address                                      it is outside: a datagram of this TTL has passed all NATs
    the server's answer                                    so has this one

All is known as soon as all hops up to the first one outside have spoken, and the next one too: it counts when the first
turns out to be our own NAT. A silent hop is waited for until 1.2 s after the start, then what has been heard must do.

Two cases deceive it. A carrier that numbers routers before its NAT with public addresses makes the TTL too small: then
the first try fails, and a larger TTL must follow. A firewall which translates nothing looks like a router: that the
first hop may be one is assumed always (LEAST).

Towards a peer, the same datagrams tell where its NATs begin: whoever bears the peer's public address is the outermost
one, or the peer itself, whose own descriptor says how many hops before it are still its own. Where nobody bears it, the
last router that spoke is short of it. All is known when the peer's address and all hops before it have spoken; many
NATs say nothing, so mostly patience ends it. What goes beyond are strays to the peer's NAT: nobody sends them unasked.

Where nobody has sounded, a primer's TTL is a guess, and one that is too small fails in silence: no hole is opened in
the outermost NAT. So each retry takes another one (`rung`). It climbs by two at most: a primer that gets as far as the
peer's NAT is a stray there, and near peers are few hops away.

States: sounding -> settled. What is heard afterwards is still taken: the server answers later than the hops before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import assert_never

from punchd.words.addresses import why_no_target
from punchd.words.events import DeadlinePassed
from punchd.words.hops import Hop, HopEvent, HopHeard, Launch, Reach, Way

LEAST = 2  # a TTL of 1 dies at the host's own gateway, before that has made any state
TTLS = range(1, 9)
REPEAT_S = 0.4
PATIENCE_S = 1.2
_RUNGS = (0, 2, 1)  # first what most carriers' NATs take, one router between the two
_TRUST = 1  # failures that a TTL which was found is forgiven: they may have had another reason


class Sounding:
    """One target's hops."""

    __slots__ = ("_began", "_ends", "_repeated", "_through", "hops", "settled")

    def __init__(self, *, now: float, timeout_s: float = PATIENCE_S, through: bool = False) -> None:
        """`through`: all the way to the target, not just out of the own NATs."""
        self._through = through
        self._began, self._ends = now, now + min(timeout_s, PATIENCE_S)
        self._repeated = self.settled = False
        self.hops: dict[int, Hop] = {}

    @property
    def deadline(self) -> float | None:
        """When `step` wants a DeadlinePassed; None once settled."""
        if self.settled:
            return None
        return self._ends if self._repeated else min(self._began + REPEAT_S, self._ends)

    def begin(self) -> list[Launch]:
        """The first datagrams."""
        return [Launch(ttl) for ttl in TTLS]

    def step(self, event: HopEvent, now: float) -> list[Launch]:
        """Take one event, return what is to be sent."""
        match event:
            case HopHeard(ttl, sender, arrived):
                rtt_ms = None if self._repeated else round((now - self._began) * 1000, 1)
                self.hops.setdefault(ttl, Hop(ttl, sender, arrived, rtt_ms))
            case DeadlinePassed():
                pass  # the time is looked at below, whatever the event
            case _:
                assert_never(event)
        self.settled = self.settled or self._complete() or now >= self._ends
        if self.settled or self._repeated or now < self._began + REPEAT_S:
            return []
        self._repeated = True
        return [Launch(ttl) for ttl in TTLS if ttl not in self.hops]

    def _complete(self) -> bool:
        way = clearing(self.hops.values(), ())
        if self._through:
            return way.distance is not None and all(ttl in self.hops for ttl in range(1, way.distance))
        return way.ttl is not None and all(ttl in self.hops for ttl in range(1, way.ttl + 2))


def rung(first: int, tried: int, *, found: bool) -> int:
    """The TTL of the primers after `tried` failed attempts in a row; `found`: `first` is no guess."""
    climbed = max(0, tried - _TRUST) if found else tried
    return first + _RUNGS[climbed % len(_RUNGS)]


def clearing(hops: Iterable[Hop], own: Collection[str]) -> Way:
    """What the hops tell; `own` are the addresses under which this host is seen outside."""
    known = sorted(hops, key=lambda hop: hop.ttl)
    outside = next((hop.ttl for hop in known if not _inside(hop, own)), None)
    inside = [hop.ttl for hop in known if not hop.arrived and (outside is None or hop.ttl < outside)]
    return Way(
        ttl=None if outside is None else max(outside, LEAST),
        least=max([LEAST, *(ttl + 1 for ttl in inside)]),
        distance=next((hop.ttl for hop in known if hop.arrived), None),
        hops=tuple(known),
    )


def reaching(hops: Iterable[Hop], peer: str, *, own: int) -> Reach:
    """What the hops tell of a peer whose public address is `peer`.

    `own`: how many of the hops before that address are still the peer's, 0 where the address is its outermost NAT's.
    """
    known = sorted(hops, key=lambda hop: hop.ttl)
    arrived = next((hop.ttl for hop in known if hop.sender == peer), None)
    before = [hop.ttl for hop in known if hop.sender != peer and (arrived is None or hop.ttl < arrived)]
    last = max(before, default=None) if arrived is None else arrived - 1
    return Reach(peer, None if last is None else max(last - own, 0), arrived, tuple(known))


def _inside(hop: Hop, own: Collection[str]) -> bool:
    """A target of a private address proves nothing by answering."""
    return hop.sender in own or why_no_target(hop.sender, allow_private=False) is not None
