"""tcp-nutss: low-TTL SYN, abort, listen on the same port (Guha, Takeda, Francis 2004, section 4.2.2).
Does not pass a default Linux NAT at A: the listener's SYN-ACK has a new sequence number, which conntrack calls
INVALID (nf_conntrack_proto_tcp.c); it passes where NAT A checks no sequence numbers.

      A            NAT A           NAT B            B
      |---SYN------>|--x             |              |   dies on the way
      | close, listen                |              |   closing a socket in SYN_SENT sends nothing
      |<------------|----------------|<-----SYN-----|
      |---SYN-ACK---|--------------->|------------->|   from the listener, with a new sequence number
      |<------------|----------------|<--ACK,COMMIT-|
"""

from __future__ import annotations

from punchd.core.pair import Pair, Script, never, own
from punchd.core.techniques.tcp_simopen import connecting, insisting
from punchd.words.effects import Abort, Connect, Listen
from punchd.words.events import SYN_ACK, SegmentSeen

NAME = "tcp-nutss"
NEEDS = frozenset({"ring", "raw"})

# Linux's sequence numbers rise by one in 64 ns (secure_seq.c). Within two windows after the aborted SYN (8.4 ms; the
# second one if B's SYN came twice) NAT A would let the listener's answer pass but not follow it: both ends would be
# ESTABLISHED, and A's data INVALID for ever. Later than that the answer is refused, and something else gets its turn.
_APART_S = 0.010


def initiator(pair: Pair) -> Script:
    pair.do(Connect, ttl=pair.hole)
    pair.do(Abort)
    yield from listening(pair)


def responder(pair: Pair) -> Script:
    yield from pair.until(never, within_s=_APART_S)
    pair.do(Connect, ttl=None)
    yield from connecting(pair)


def listening(pair: Pair) -> Script:
    """A listener for this peer alone; its SYN-ACK is re-sent until the attempt ends the pair."""
    pair.do(Listen)
    pair.say_primed()
    if pair.blind:
        yield from pair.until(lambda _: pair.connected)
        pair.say_answered(handshake=True)
        yield from pair.until(lambda _: False)
        return
    answer = yield from pair.until(own(SYN_ACK))
    assert isinstance(answer, SegmentSeen)
    pair.say_answered(handshake=True)
    yield from insisting(pair, answer)
