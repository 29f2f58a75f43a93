"""tcp-direct: an ordinary connection to a listener, for a peer that can be reached as it is.
Opens no hole: it passes only where the initiator's side is open or its port is mapped.

      A                                             B
      | listen                                      |
      |<-----------------------------------SYN------|
      |---SYN-ACK--x                                |   A's kernel answers at hole range, before punchd knows ...
      |---SYN-ACK---------------------------------->|   ... so the captured answer goes out again, at full range
      |<-----------------------------------ACK,COMMIT

The detour keeps the rule of core/attempt.py: no answer leaves but by punchd's own hand. A blind initiator lets its
kernel answer at full range; its responder tries one pair at a time.

And the other way, where it is the responder who can be reached as it is:

      A                                             B
      |------SYN----------------------------------->|   refused until B listens, so again and again, every 20 ms
      |                                             | listen
      |------SYN----------------------------------->|
      |<-----------------------------SYN-ACK--------|
      |---ACK, ANSWER------------------------------>|   the kernel's ACK is not punchd's word; ANSWER is
      |<------------------------------COMMIT--------|
"""

from __future__ import annotations

from punchd.core.pair import Pair
from punchd.core.script import Script, connected, never, own
from punchd.core.techniques.tcp_simopen import connecting, insisting, reached, reaching
from punchd.words.effects import Listen, Resend
from punchd.words.events import SYN_ACK, SegmentSeen
from punchd.words.notification import Opening

NAME = "tcp-direct"
NEEDS: frozenset[str] = frozenset()


def initiator(pair: Pair) -> Script:
    if pair.offer.opening is not Opening.PRIMED:
        yield from reaching(pair)
        return
    if pair.blind:
        pair.do(Listen, ttl=None)
        pair.say_primed()
        yield from pair.until(connected)
        pair.say_answered(handshake=True)
        yield from pair.until(never)
    pair.do(Listen, ttl=pair.hole)
    pair.say_primed()
    answer = yield from pair.until(own(SYN_ACK))
    assert isinstance(answer, SegmentSeen)
    pair.do(Resend, answer.segment)
    pair.say_answered(handshake=True)
    yield from insisting(pair, answer)


def responder(pair: Pair) -> Script:
    if pair.offer.opening is not Opening.PRIMED:
        pair.do(Listen, ttl=None)
        yield from reached(pair)
    else:
        pair.connect(ttl=None)
        yield from connecting(pair)
    pair.say_proven()
    yield from pair.until(never)
