"""One line of a plan: which technique, how it opens, and from and to which ports.
Chooses nothing: core/plan.py does, from both NATs' classes."""

from __future__ import annotations

from dataclasses import dataclass

from .notification import Offer, Opening, Spread


@dataclass(frozen=True, slots=True)
class Lanes:
    """The ports of a technique of many 4-tuples, as the initiator sees them; a `first` of 0 is drawn or guessed.

    own     ours, from which we send        seen  what our NAT makes of them: where the peer aims
    peers   the peer's, from which it sends  aims  what its NAT makes of those: where we aim
    """

    own: Spread
    seen: Spread
    peers: Spread
    aims: Spread
    handshake: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One technique of a plan. Ports that are 0 are drawn, with both NATs taken to keep them.

    own_port   ours, where only that one's mapping is known       seen_port  what our NAT makes of it
    peer_port  the peer's, where only that one's mapping is known  aim_port  what its NAT makes of it
    reason     why it is in the plan, for people
    """

    technique: str
    opening: Opening = Opening.PRIMED
    own_port: int = 0
    seen_port: int = 0
    peer_port: int = 0
    aim_port: int = 0
    lanes: Lanes | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer, and what only this side needs to know of it: the port that it opens, and the one that it aims at."""

    offer: Offer
    own_port: int
    aim_port: int
