"""tcp-direct: an ordinary connection to a listener, for a peer that can be reached as it is.
Opens no hole: it passes only where the initiator's side is open or its port is mapped.

      A                                             B
      | listen                                      |
      |<-----------------------------------SYN------|
      |---SYN-ACK---------------------------------->|
      |<-----------------------------------ACK,COMMIT
"""

from __future__ import annotations

from punchd.core.pair import Pair, Script
from punchd.core.techniques.tcp_nutss import listening
from punchd.core.techniques.tcp_simopen import connecting
from punchd.words.effects import Connect

NAME = "tcp-direct"
NEEDS: frozenset[str] = frozenset()


def initiator(pair: Pair) -> Script:
    yield from listening(pair)


def responder(pair: Pair) -> Script:
    pair.do(Connect, ttl=None)
    yield from connecting(pair)
