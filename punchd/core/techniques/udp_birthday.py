"""udp-birthday: udp on many 4-tuples, for a NAT at one side that gives each destination another port.
Passes what tcp-birthday passes (core/fan.py has the diagram); needs no privilege: the side with many ports holds as
many sockets, and the one that is hit is connected.
"""

from __future__ import annotations

from punchd.core import fan
from punchd.core.pair import UDP_HOLE_S, Pair
from punchd.core.script import Script

NAME = "udp-birthday"
NEEDS: frozenset[str] = frozenset()


def initiator(pair: Pair) -> Script:
    return fan.initiator(pair, UDP_HOLE_S)


def responder(pair: Pair) -> Script:
    return fan.responder(pair, UDP_HOLE_S)
