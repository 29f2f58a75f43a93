"""tcp-birthday: tcp-midstream on many 4-tuples, for a NAT at one side that gives each connection another port.
Passes a random NAT (256 holes met by 1024 probes), and a sequential one whose next ports are guessed; core/fan.py has
the diagram. Not a random NAT at both sides.
"""

from __future__ import annotations

from punchd.core import fan
from punchd.core.pair import ACK_HOLE_S, SYN_HOLE_S, Pair
from punchd.core.script import Script

NAME = "tcp-birthday"
NEEDS = frozenset({"ring", "raw", "repair"})


def initiator(pair: Pair) -> Script:
    return fan.initiator(pair, _hole_s(pair))


def responder(pair: Pair) -> Script:
    return fan.responder(pair, _hole_s(pair))


def _hole_s(pair: Pair) -> float:
    return SYN_HOLE_S if pair.offer.fan is not None and pair.offer.fan.handshake else ACK_HOLE_S
