"""Which techniques to try, in which order, given what this host can do.
Opens nothing and knows no NAT classes yet: without them the order is that of the design."""

from __future__ import annotations

from collections.abc import Iterable

from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.notification import Offer, Opening
from punchd.words.plan import Candidate, Row

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

    An explicit list says that its techniques are wanted however they open; `auto` fires at nobody unasked.
    """
    return [
        Row(name, opening)
        for name in names
        for opening in (Opening.PRIMED, Opening.REFIRED)
        if opening is Opening.PRIMED or (listed and name in _EITHER_WAY)
    ]


_EITHER_WAY = {"tcp-direct"}


def draw(row: Row, ports: Ports) -> Candidate:
    """A candidate pair for the row, on ports never used before where the row leaves them open."""
    technique = TECHNIQUES[row.technique]
    reverse = row.opening is not Opening.PRIMED
    own, peer = ports.draw(own_listens=technique.listens and not reverse, peer_listens=technique.listens and reverse)
    own, peer = row.own_port or own, row.peer_port or peer
    offer = Offer(row.technique, row.seen_port or own, peer, opening=row.opening)
    return Candidate(offer, own, row.aim_port or peer)
