"""tcp-direct: an ordinary connection to a listener, for a peer that can be reached as it is.
Opens no hole: it passes only where the initiator's side is open or its port is mapped.

      A                                             B
      | listen                                      |
      |<-----------------------------------SYN------|
      |---SYN-ACK---------------------------------->|
      |<-----------------------------------ACK,COMMIT
"""

from __future__ import annotations

from punchd.core.pair import Pair, Script, connected, never, own, peers
from punchd.core.techniques.tcp_simopen import connecting
from punchd.words.effects import Connect, Listen, Resend
from punchd.words.events import SYN, SYN_ACK, SegmentSeen

NAME = "tcp-direct"
NEEDS: frozenset[str] = frozenset()


def initiator(pair: Pair) -> Script:
    pair.do(Listen)
    pair.say_primed()
    if pair.blind:
        yield from pair.until(connected)
        pair.say_answered(handshake=True)
        yield from pair.until(never)
        return
    answer = yield from pair.until(own(SYN_ACK))
    assert isinstance(answer, SegmentSeen)
    pair.say_answered(handshake=True)
    yield from pair.repeat(peers(SYN), again=lambda: pair.do(Resend, answer.segment))


def responder(pair: Pair) -> Script:
    pair.do(Connect, ttl=None)
    yield from connecting(pair)
    pair.say_proven()
    yield from pair.until(never)
