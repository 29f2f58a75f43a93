"""From a row of the plan, or an offer of the peer's, to a candidate pair: ports are drawn where they are left open.
Decides nothing: which ports may be open is the plan's matter."""

from __future__ import annotations

from punchd.core.lanes import MEETS_MAX, ROUNDS
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.notification import Fan, Offer, Opening, Spread
from punchd.words.plan import Candidate, Lanes, Row, meeting


def draw(row: Row, ports: Ports) -> Candidate:
    """A candidate pair for the row, on ports never used before where the row leaves them open."""
    technique = TECHNIQUES[row.technique]
    reverse = row.opening is not Opening.PRIMED
    own, peer = ports.draw(own_listens=technique.listens and not reverse, peer_listens=technique.listens and reverse)
    if row.lanes is not None:
        return _draw_fan(row, row.lanes, own, peer, ports.seed(ROUNDS * row.lanes.own.count))
    own, peer = row.own_port or own, row.peer_port or peer
    offer = Offer(row.technique, row.seen_port or own, peer, opening=row.opening, timed=row.timed)
    return Candidate(offer, own, row.aim_port or peer, row.after_s, remote=row.remote)


def _draw_fan(row: Row, lanes: Lanes, own: int, peer: int, seed: int) -> Candidate:
    mine = _one(lanes.own, own)
    fan = Fan(_one(lanes.seen, mine.first), _one(lanes.peers, peer), lanes.handshake, meeting(lanes))
    aims = _one(lanes.aims, fan.sources.first)
    offer = Offer(row.technique, fan.targets.first, fan.sources.first, opening=row.opening, fan=fan)
    return Candidate(offer, _only(mine), _only(aims), row.after_s, mine, aims, seed, row.remote)


def meet(offer: Offer, ports: Ports, remote: str = "") -> Candidate:
    """The responder's candidate for an offer; `remote` where it is not for the initiator's first address."""
    if offer.fan is None:
        return Candidate(offer, offer.responder_port, offer.initiator_port, remote=remote)
    own, aims = offer.fan.sources, offer.fan.targets
    seed = ports.seed(MEETS_MAX // 2 if offer.fan.meets else ROUNDS * own.count)  # few need all
    return Candidate(offer, _only(own), _only(aims), own=own, aims=aims, seed=seed, remote=remote)


def _one(spread: Spread, port: int) -> Spread:
    """A single port that is left open is this one; several stay to be drawn."""
    return Spread(port) if spread.count == 1 and not spread.first else spread


def _only(spread: Spread) -> int:
    return spread.first if spread.count == 1 else 0
