"""tcp-syni: SYN injection (Holzapfel, Wander, Wacker, Weis 2011), into the kept socket.
Passes a NAT A that filters every inbound SYN; NAT B must let a SYN-ACK out after a SYN (Linux's does not).

      A            NAT A           NAT B            B
      |---SYN------>|--x             |              |   dies; the ring reads its sequence number for the notification
      |             |             x--|<-----SYN-----|   dies; opens NAT B; B's socket stays in SYN_SENT
      |             |                |         SYN >|   a copy of A's SYN, injected into B's own stack
      |<------------|----------------|<---SYN-ACK---|   B's stack answers; NAT A sees the answer to its SYN
      |---ACK------>|--x             |              |   A's stack acknowledges, still at hole range ...
      |---ACK-------|--------------->|------------->|   ... so the captured ACK goes out again, at full range
      |<------------|----------------|<---COMMIT----|   only now has A proof that it is heard: its SYN had died
"""

from __future__ import annotations

from punchd.core.pair import SYN_HOLE_S, Pair
from punchd.core.script import Script, never, own, peers
from punchd.words.effects import Inject, Resend, SetTtl
from punchd.words.events import ACK, SYN, SYN_ACK, DeadlinePassed, SegmentSeen, Signal
from punchd.words.notification import Syn

NAME = "tcp-syni"
NEEDS = frozenset({"ring", "raw"})

_CAPTURE_S = 0.5  # the ring shows our own SYN within a millisecond, or never


def initiator(pair: Pair) -> Script:
    pair.connect(ttl=pair.hole)
    syn = yield from pair.until(own(SYN), within_s=_CAPTURE_S)
    if isinstance(syn, DeadlinePassed):
        pair.fail("syn-not-captured", "our own SYN did not appear in the capture ring")
        return
    assert isinstance(syn, SegmentSeen)
    pair.say_primed(Syn(syn.seq, syn.window, syn.mss, syn.window_scale, syn.sack_permitted, syn.timestamp))
    # before the SYN-ACK an ACK of ours is but the stack's challenge to something odd, and the socket not ESTABLISHED
    acknowledged = own(ACK)
    ack = yield from pair.hold(
        lambda event: pair.evidence.peer_syn_ack and acknowledged(event), pair.reopen, SYN_HOLE_S
    )
    assert isinstance(ack, SegmentSeen)
    segment = ack.segment

    def again() -> None:
        pair.do(Resend, segment)
        pair.tell(Signal.ANSWER)  # a peer that has the ACK already sees nothing in another one

    pair.do(SetTtl, ttl=None)
    pair.do(Resend, segment)
    pair.connected = True  # a stack that acknowledges a SYN-ACK is ESTABLISHED
    pair.say_answered(early=True)
    yield from pair.repeat(peers(SYN_ACK), again)


def responder(pair: Pair) -> Script:
    syn = pair.offer.syn
    assert syn is not None
    pair.connect(ttl=pair.hole)
    pair.do(SetTtl, ttl=None)
    pair.do(Inject, syn)
    pair.mark_fired()
    answer = yield from pair.until(own(SYN_ACK), again=lambda: pair.do(Inject, syn))
    assert isinstance(answer, SegmentSeen)
    if not pair.connected:
        yield from pair.until(lambda _: pair.connected, again=lambda: pair.do(Resend, answer.segment))
    pair.say_proven()
    yield from pair.until(never)
