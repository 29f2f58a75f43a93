"""Which techniques to try, in which order, given what this host can do.
Opens nothing and knows no NAT classes yet: without them the order is that of the design."""

from __future__ import annotations

from collections.abc import Iterable

from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.notification import SOURCES_MAX, SPREAD_MAX, Fan, Offer, Opening, Spread
from punchd.words.plan import Candidate, Lanes, Row

# simopen first: least privilege, and the most NATs in the field let a SYN in after a SYN out. midstream second:
# where every inbound SYN is dropped it is what passes. The rest serve the NATs that neither of them passes.
AUTO = {
    "tcp": ("tcp-simopen", "tcp-midstream", "tcp-direct", "tcp-syni", "tcp-nutss"),
    "udp": ("udp",),
}


def choose(wanted: Iterable[str] | None, transport: str, able: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    """The techniques that can run here, in order, and for each that can't the capabilities it lacks."""
    runnable: list[str] = []
    missing: dict[str, str] = {}
    for name in AUTO[transport] if wanted is None else wanted:
        lacking = TECHNIQUES[name].needs - able
        if lacking:
            missing[name] = ", ".join(sorted(lacking))
        else:
            runnable.append(name)
    return runnable, missing


def rows(names: Iterable[str], *, listed: bool) -> list[Row]:
    """The plan where nothing is known of either NAT.

    An explicit list says that its techniques are wanted however they open; `auto` fires at nobody unasked. A fan takes
    either side for the one whose ports are drawn at random, and on TCP either NAT for one that wants a SYN first.
    """
    plan: list[Row] = []
    for name in names:
        if name in _FANNED:
            modes = (False, True) if TECHNIQUES[name].transport == "tcp" else (False,)
            plan += [Row(name, lanes=lanes) for mode in modes for lanes in (own_random(mode), peers_random(mode))]
        else:
            plan.append(Row(name))
        if listed and name in _EITHER_WAY:
            plan.append(Row(name, Opening.REFIRED))
    return plan


_EITHER_WAY = {"tcp-direct"}
_FANNED = {"tcp-birthday", "udp-birthday"}


def own_random(handshake: bool = False) -> Lanes:
    """Our NAT draws ports at random: many ports of ours aim at one of the peer's, which aims at many of our NAT's."""
    return Lanes(Spread(0, SOURCES_MAX), Spread(0, SPREAD_MAX), Spread(0), Spread(0), handshake)


def peers_random(handshake: bool = False) -> Lanes:
    """The peer's NAT does."""
    return Lanes(Spread(0), Spread(0), Spread(0, SOURCES_MAX), Spread(0, SPREAD_MAX), handshake)


def draw(row: Row, ports: Ports) -> Candidate:
    """A candidate pair for the row, on ports never used before where the row leaves them open."""
    technique = TECHNIQUES[row.technique]
    reverse = row.opening is not Opening.PRIMED
    own, peer = ports.draw(own_listens=technique.listens and not reverse, peer_listens=technique.listens and reverse)
    if row.lanes is not None:
        return _draw_fan(row, row.lanes, own, peer, ports.seed())
    own, peer = row.own_port or own, row.peer_port or peer
    offer = Offer(row.technique, row.seen_port or own, peer, opening=row.opening)
    return Candidate(offer, own, row.aim_port or peer)


def _draw_fan(row: Row, lanes: Lanes, own: int, peer: int, seed: int) -> Candidate:
    mine = _one(lanes.own, own)
    fan = Fan(_one(lanes.seen, mine.first), _one(lanes.peers, peer), lanes.handshake)
    aims = _one(lanes.aims, fan.sources.first)
    offer = Offer(row.technique, fan.targets.first, fan.sources.first, opening=row.opening, fan=fan)
    return Candidate(offer, _only(mine), _only(aims), mine, aims, seed)


def meet(offer: Offer, ports: Ports) -> Candidate:
    """The responder's candidate for an offer."""
    if offer.fan is None:
        return Candidate(offer, offer.responder_port, offer.initiator_port)
    own, aims = offer.fan.sources, offer.fan.targets
    return Candidate(offer, _only(own), _only(aims), own, aims, ports.seed())


def _one(spread: Spread, port: int) -> Spread:
    """A single port that is left open is this one; several stay to be drawn."""
    return Spread(port) if spread.count == 1 and not spread.first else spread


def _only(spread: Spread) -> int:
    return spread.first if spread.count == 1 else 0
