"""What two NAT classes say of a row of the plan: that it passes, that it can't, or nothing.
Orders nothing (core/plan.py does), and takes what no probe has measured for open."""

from __future__ import annotations

from enum import Enum, auto

from punchd.core.techniques import TECHNIQUES
from punchd.words.nat import NatClass
from punchd.words.notification import Opening
from punchd.words.plan import Row

# What must hold of the initiator's NAT and of the responder's for the row to pass. Rows that are not here pass few
# NATs, for reasons that no class names.
_NEEDS: dict[tuple[str, Opening], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("tcp-simopen", Opening.PRIMED): (("outlives_icmp", "takes_syn"), ()),
    ("tcp-simopen", Opening.REFIRED): ((), ("outlives_icmp", "takes_syn", "forgives")),
    ("tcp-simopen", Opening.CALLED): ((), ("outlives_icmp", "takes_syn")),
    ("tcp-midstream", Opening.PRIMED): (("outlives_icmp", "picks_up"), ("picks_up",)),
    ("tcp-midstream", Opening.REFIRED): (("picks_up",), ("outlives_icmp", "picks_up", "forgives")),
    ("tcp-midstream", Opening.CALLED): (("picks_up",), ("outlives_icmp", "picks_up")),
    ("tcp-midstream", Opening.CROSSED): (("picks_up",), ("picks_up", "drops_strays")),
    ("udp", Opening.PRIMED): (("outlives_icmp",), ()),
    ("udp", Opening.REFIRED): ((), ("outlives_icmp", "forgives")),
    ("udp", Opening.CALLED): ((), ("outlives_icmp",)),
    ("udp", Opening.CROSSED): ((), ("drops_strays",)),
}

OPENINGS = {
    Opening.PRIMED: "ours dies on its way and opens our NAT, then the peer fires",
    Opening.REFIRED: "the peer opens its own NAT and waits for us",
    Opening.CALLED: "the peer opens its own NAT and calls us",
    Opening.CROSSED: "both fire all the way",
}
_LACKS = {
    "outlives_icmp": "ends a mapping at a time exceeded",
    "takes_syn": "lets no SYN in",
    "picks_up": "wants a SYN first",
    "drops_strays": "answers strays",
    "forgives": "blocks who sends strays",
}


class Prospect(Enum):
    """What the classes say of a row."""

    PASSES = auto()
    OPEN = auto()
    SELDOM = auto()
    """Few NATs; no class says which."""
    FAILS = auto()
    HARMS = auto()


def prospect(row: Row, own: NatClass, peer: NatClass) -> tuple[Prospect, str]:
    """What the classes say of it, and why."""
    needs = _NEEDS.get((row.technique, row.opening))
    if needs is None:
        if own.outlives_icmp is False and row.opening is Opening.PRIMED and not TECHNIQUES[row.technique].knocks:
            return Prospect.FAILS, f"our NAT {_LACKS['outlives_icmp']}"
        return Prospect.SELDOM, "passes where the others fail, on few NATs"
    holds = [
        (getattr(nat, axis), whose, axis)
        for nat, axes, whose in ((own, needs[0], "our"), (peer, needs[1], "the peer's"))
        for axis in axes
    ]
    for held, whose, axis in holds:
        if held is False:
            harms = row.opening in (Opening.REFIRED, Opening.CROSSED) and axis in ("forgives", "drops_strays")
            dies = row.opening is Opening.PRIMED and axis == "outlives_icmp"
            return Prospect.HARMS if harms or dies else Prospect.FAILS, f"{whose} NAT {_LACKS[axis]}"
    known = all(held for held, _, _ in holds)
    return Prospect.PASSES if known else Prospect.OPEN, OPENINGS[row.opening]
