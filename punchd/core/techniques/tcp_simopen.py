"""tcp-simopen: simultaneous open, primed (Ford, Srisuresh, Kegel 2005, with a low-TTL first SYN).
Needs no privilege; sees more with the ring. Does not work where NAT A drops inbound SYNs.

      A            NAT A           NAT B            B
      |---SYN------>|--x             |              |   dies on the way; A's socket stays in SYN_SENT, TTL left low:
      |             |                |              |   no retransmission of the kernel may reach a punishing NAT
      |<------------|----------------|<-----SYN-----|
      |---SYN-ACK-->|--x             |              |   our stack answers, still at hole range ...
      |---SYN-ACK---|--------------->|------------->|   ... so the captured answer goes out again, at full range
      |<------------|----------------|<--ACK,COMMIT-|
"""

from __future__ import annotations

from punchd.core.pair import FIRST_RESYN_S, SYN_HOLE_S, Pair
from punchd.core.script import Script, connected, never, own, peers, signal
from punchd.words.effects import Abort, Resend, SetTtl
from punchd.words.events import SYN, SYN_ACK, SegmentSeen, Signal
from punchd.words.notification import Opening

NAME = "tcp-simopen"
NEEDS: frozenset[str] = frozenset()

# The kernel retransmits a SYN after 1 s (tcp_timeouts.h, TCP_TIMEOUT_INIT); a blind initiator, whose TTL is
# already raised, starts afresh before that could reach a punishing NAT.
_REPRIME_S = 0.9


def initiator(pair: Pair) -> Script:
    if pair.offer.opening is not Opening.PRIMED:
        yield from reaching(pair)
        return
    pair.connect(ttl=pair.hole)
    if pair.blind:
        yield from _blind_initiator(pair)
        return
    pair.say_primed()
    answer = yield from pair.hold(own(SYN_ACK), pair.reopen, SYN_HOLE_S)
    assert isinstance(answer, SegmentSeen)
    pair.do(SetTtl, ttl=None)
    pair.do(Resend, answer.segment)
    pair.say_answered(handshake=True)
    yield from insisting(pair, answer)


def responder(pair: Pair) -> Script:
    if pair.offer.opening is not Opening.PRIMED:
        pair.connect(ttl=pair.hole)
        yield from reached(pair)
    else:
        pair.connect(ttl=None)
        yield from connecting(pair)
    pair.say_proven()
    yield from pair.until(never)


def reaching(pair: Pair) -> Script:
    """The initiator connects to a responder that waits for it, and insists while it is refused.

    What its kernel then acknowledges proves nothing to the responder; the ANSWER that punchd sends along does.
    """

    def again() -> None:
        if pair.own_syn is not None:
            pair.do(Resend, pair.own_syn.segment)

    yield from pair.bides(never)
    pair.connect(ttl=None, stubborn=True)
    pair.say_primed()
    yield from pair.insist(lambda _: pair.connected and pair.evidence.peer_syn_ack, again)
    pair.tell(Signal.ANSWER)
    pair.say_answered()
    fire = signal(Signal.FIRE)
    yield from pair.repeat(lambda event: fire(event) or peers(SYN_ACK)(event), again=lambda: pair.tell(Signal.ANSWER))


def reached(pair: Pair) -> Script:
    """The responder's side of it: our stack answers the SYN, and the ANSWER tells that this came through.

    Once that has passed our NAT, it may call a SYN-ACK INVALID; if the kernel's ACK was lost, a FIRE fetches it.
    """
    pair.calls = pair.offer.opening is Opening.CALLED
    answer = yield from pair.hold(own(SYN_ACK), pair.reopen, SYN_HOLE_S)
    assert isinstance(answer, SegmentSeen)
    pair.mark_fired()
    if answer.ttl <= pair.hole:
        pair.do(SetTtl, ttl=None)
        pair.do(Resend, answer.segment)

    def again() -> None:
        if pair.connected or pair.evidence.told(Signal.ANSWER):
            pair.tell(Signal.FIRE)
        else:
            pair.do(Resend, answer.segment)

    yield from pair.until(lambda _: pair.connected and pair.evidence.told(Signal.ANSWER), again)


def connecting(pair: Pair) -> Script:
    """A connect() at full range, its SYN re-fired until the SYN-ACK comes: how three techniques respond."""
    pair.mark_fired()
    if pair.blind:
        yield from pair.until(connected)
    else:
        syn = yield from pair.until(own(SYN))
        assert isinstance(syn, SegmentSeen)
        yield from pair.until(lambda _: pair.connected and pair.evidence.peer_syn_ack,
                              again=lambda: pair.do(Resend, syn.segment), first_s=FIRST_RESYN_S)  # fmt: skip


def insisting(pair: Pair, answer: SegmentSeen) -> Script:
    """The SYN-ACK again until it has arrived. Once the peer is known to be connected, NAT A would call it INVALID; a
    signal passes, and fetches what was lost: the peer's kernel acknowledges it, the peer's punchd repeats COMMIT."""

    def again() -> None:
        if pair.connected or pair.committed:
            pair.tell(Signal.ANSWER)
        else:
            pair.do(Resend, answer.segment)

    yield from pair.repeat(peers(SYN), again)


def _blind_initiator(pair: Pair) -> Script:
    """Without the ring nobody tells us of B's SYN: the TTL goes up at once, and the kernel itself answers."""

    def reprime() -> None:
        pair.do(Abort)
        pair.connect(ttl=pair.hole)
        pair.do(SetTtl, ttl=None)

    pair.do(SetTtl, ttl=None)
    pair.say_primed()
    while not pair.connected:
        yield from pair.until(connected, within_s=_REPRIME_S)
        if not pair.connected:
            reprime()
    pair.say_answered(handshake=True)
    yield from pair.until(never)
