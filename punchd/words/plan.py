"""One line of a plan: which technique, how it opens, and from and to which ports.
Chooses nothing: core/plan.py does, from both NATs' classes."""

from __future__ import annotations

import msgspec

from .nat import Face, NatClass
from .notification import Offer, Opening, Spread

_UNKNOWN = NatClass()


class View(msgspec.Struct, frozen=True, gc=False):
    """What the plan knows of one side.

    own_port, public_port  a mapping that is there already; 0: none, or none is needed
    face, other            what its descriptor says of this transport, and of the other one
    unsure                 others of ours, which its NAT has perhaps not counted, or not among these
    aimed                  where other attempts of ours will bring its NAT, as far as it counts; 0: nowhere
    taken                  mappings that attempts of ours have made at its NAT since it was made
    """

    nat: NatClass = _UNKNOWN
    own_port: int = 0
    public_port: int = 0
    face: Face | None = None
    other: Face | None = None
    taken: int = 0
    unsure: int = 0
    aimed: int = 0


class Lanes(msgspec.Struct, frozen=True, gc=False):
    """The ports of a technique of many 4-tuples, as the initiator sees them; a `first` of 0 is drawn or guessed.

    own     ours, from which we send        seen  what our NAT makes of them: where the peer aims
    peers   the peer's, from which it sends  aims  what its NAT makes of those: where we aim
    """

    own: Spread
    seen: Spread
    peers: Spread
    aims: Spread
    handshake: bool = False


def meeting(lanes: Lanes) -> int:
    """The public port of the peer's at which all of ours aim, if its NAT is to be brought there; 0: there is none."""
    return lanes.aims.first if lanes.aims.count == 1 and lanes.peers.count > 1 and not lanes.peers.first else 0


class Row(msgspec.Struct, frozen=True, gc=False):
    """One technique of a plan. Ports that are 0 are drawn, with both NATs taken to keep them.

    own_port   ours, where only that one's mapping is known       seen_port  what our NAT makes of it
    peer_port  the peer's, where only that one's mapping is known  aim_port  what its NAT makes of it
    after_s    the initiator fires unasked only so long after its start, or once it is called; 0: at once
    remote, public  the peer's address and ours, as each sees the other, where they are not the attempt's
    timed      the initiator fires besides, from `after_s` on, so as to come just after the notification
    reason     why it is in the plan, for people
    """

    technique: str
    opening: Opening = Opening.PRIMED
    own_port: int = 0
    seen_port: int = 0
    peer_port: int = 0
    aim_port: int = 0
    lanes: Lanes | None = None
    after_s: float = 0.0
    reason: str = ""
    remote: str = ""
    public: str = ""
    timed: bool = False


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An offer, and what only this side needs to know of it: the port that it opens, and the one that it aims at.

    after_s    how long it bides its time
    own, aims  of a fan: the ports instead, 0 standing for what `seed` draws
    remote     the address to aim at, where it is not the attempt's
    """

    offer: Offer
    own_port: int
    aim_port: int
    after_s: float = 0.0
    own: Spread | None = None
    aims: Spread | None = None
    seed: int = 0
    remote: str = ""
