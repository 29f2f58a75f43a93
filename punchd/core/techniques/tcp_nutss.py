"""tcp-nutss: low-TTL SYN, abort, listen on the same port (Guha, Takeda, Francis 2004, section 4.2.2).
Does not pass a default Linux NAT at A: the listener's SYN-ACK has a new sequence number, which conntrack calls
INVALID (nf_conntrack_proto_tcp.c); it passes where NAT A checks no sequence numbers.

      A            NAT A           NAT B            B
      |---SYN------>|--x             |              |   dies on the way
      | close, listen                |              |   closing a socket in SYN_SENT sends nothing
      |<------------|----------------|<-----SYN-----|
      |---SYN-ACK---|--------------->|------------->|   from the listener, with a new sequence number
      |<------------|----------------|<--ACK,FIRE---|   B's kernel is content with a SYN-ACK; B is not:
      |---ANSWER----|--------------->|------------->|
      |<------------|----------------|<---COMMIT----|

The extra round trip is the price of proof. When little time passes between the two SYNs of A, the new number is so
little above the old one that conntrack lets this one SYN-ACK slip through, and nothing after it: both kernels call
the connection ESTABLISHED, and no byte ever passes.
"""

from __future__ import annotations

from punchd.core.pair import SYN_HOLE_S, Pair
from punchd.core.script import Script, never, own, peers, signal
from punchd.core.techniques.tcp_simopen import connecting
from punchd.words.effects import Abort, Listen, Resend
from punchd.words.events import SYN, SYN_ACK, SegmentSeen, Signal

NAME = "tcp-nutss"
NEEDS = frozenset({"ring", "raw"})

# Linux's sequence numbers rise by one in 64 ns (secure_seq.c). Within two windows after the aborted SYN (8.4 ms; the
# second one if B's SYN came twice) NAT A lets the listener's SYN-ACK slip through; later it refuses it cleanly, and
# the verdict is the plain truth: nothing was heard.
_APART_S = 0.010


def initiator(pair: Pair) -> Script:
    pair.connect(ttl=pair.hole)
    pair.do(Abort)
    pair.do(Listen, ttl=None)
    pair.say_primed()
    answer = yield from pair.hold(own(SYN_ACK), pair.reopen, SYN_HOLE_S)
    assert isinstance(answer, SegmentSeen)

    def resend() -> None:
        pair.do(Resend, answer.segment)

    fire = signal(Signal.FIRE)
    while not pair.evidence.signals:
        yield from pair.until(lambda event: fire(event) or peers(SYN)(event), again=resend)
        if not pair.evidence.signals:
            resend()
    pair.tell(Signal.ANSWER)
    pair.say_answered()
    yield from pair.repeat(fire, again=lambda: pair.tell(Signal.ANSWER))


def responder(pair: Pair) -> Script:
    yield from pair.until(never, within_s=_APART_S)
    pair.connect(ttl=None)
    yield from connecting(pair)
    pair.tell(Signal.FIRE)
    yield from pair.until(signal(Signal.ANSWER), again=lambda: pair.tell(Signal.FIRE))
    pair.say_proven()
    yield from pair.until(never)
