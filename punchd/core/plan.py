"""Which techniques to try, in which order, given what this host can do.
Opens nothing and knows no NAT classes yet: without them the order is that of the design."""

from __future__ import annotations

from collections.abc import Iterable

from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES
from punchd.words.notification import Offer

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


def offer(name: str, ports: Ports) -> Offer:
    """A candidate pair for the technique on ports never used before."""
    own, peer = ports.draw(listens=TECHNIQUES[name].listens)
    return Offer(name, own, peer)
