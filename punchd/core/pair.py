"""One candidate pair: a technique's script at work on one 4-tuple, and the evidence of what its packets did.
Chooses nothing among pairs (core/attempt.py does) and performs nothing.

Theory of operation
-------------------
A technique is a generator, its *script*: it asks for effects with `pair.do(...)`, waits with
`yield from pair.until(...)`, and says how far it got with `primed`, `answered` and `proven`. So each script reads
like its paper's sequence diagram. Every script, of either transport, is the same conversation of three segments:

    initiator                      responder
    primed     --PRIME--x                          opens NAT A, dies on the way
    answered   <--------FIRE--     fires           a SYN, a SYN-ACK, or a signal
               --ANSWER------->    proven          the peer got our FIRE, and we got its answer
               <------COMMIT--     chosen          the peer got our ANSWER

While a script waits, `again` re-sends its last word at 150 ms, 390 ms, 774 ms, ... (a SYN at 300 ms, 780 ms, ...): no
technique waits for a kernel's retransmission. A re-fired segment is harmless: the peer's NAT was primed before we were
told to fire.

Where the offer is timed, PRIMEs go all the way as well, every few milliseconds from before the responder can be ready.
The first that finds its hole open is answered by COMMIT, while FIRE is still under way (core/attempt.py).

Where the plan says that the initiator must fire (words/notification.py, Opening), its PRIME goes all the way, every
20 ms or once it is called; the responder's first FIRE opens its own NAT, and it fires again when it hears a PRIME. The
other three segments, and with them the rule by which both sides choose, stay what they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Concatenate, ParamSpec

from punchd.core.evidence import Evidence
from punchd.core.lanes import Rounds
from punchd.core.script import Script, ScriptEvent, Waiting, Wanted, heard, signal
from punchd.core.terms import Terms, secret_numbers
from punchd.words.effects import AskKernel, Clear, ClosePair, Connect, Effect, Resend, SetTtl, Tell
from punchd.words.events import (
    ACK,
    ANSWER,
    BY_WINDOW,
    COMMIT,
    FIRE,
    RST,
    SYN,
    SYN_ACK,
    Called,
    Connected,
    DeadlinePassed,
    EffectFailed,
    IcmpSeen,
    KernelHeard,
    Located,
    PacketRefused,
    Readable,
    SegmentSeen,
    Signal,
    SignalSeen,
    SocketFailed,
    StraySeen,
    Withheld,
)
from punchd.words.notification import Opening, Spread, Syn
from punchd.words.plan import Candidate

P = ParamSpec("P")

FIRST_REFIRE_S = 0.150
FIRST_RESYN_S = 0.300
"""A SYN that comes after the SYN-ACK is INVALID to the peer's NAT; if that answers strays, its RST may end the
connection at ours. So it waits longer than most round trips take. Of several techniques another connects meanwhile."""
REFIRE_GROWTH = 1.6
INSIST_S = 0.020  # how often an initiator fires at a peer that is not known to be ready ...
TIMED_S = 0.003  # ... of one that is timed: what it comes too late by, at most ...
INSIST_SHARE = 0.02  # ... and later, as a share of the time waited so far: what a miss may add to it
REFIRE_CEILING_S = 2.0

# How long a primed hole may wait before it is primed again: well within the shortest life met in the field.
SYN_HOLE_S = 100.0  # Linux: 120 s (nf_conntrack_tcp_timeout_syn_sent)
ACK_HOLE_S = 240.0  # Linux: 300 s for a picked-up connection without reply
UDP_HOLE_S = 12.0  # home gateways: from 30 s after a single packet (Hätönen et al. 2010)
SEQ_MASK = 0xFFFFFFFF
_NO_LANES = Rounds(Spread(0), Spread(0), 0)  # of all pairs that are no fan: nothing is sent on them


class Pair:
    """A candidate pair (RFC 8445) and the script that works on it."""

    __slots__ = (
        "_interval", "after_s", "aim_port", "answered", "calls", "closed", "committed", "connected",
        "deadline", "early", "evidence", "fail_cause", "fail_code", "fired_at", "given", "handshake", "index",
        "lanes", "meets", "moved", "now", "numbered", "offer", "outbox", "own_port", "own_syn", "primed", "proven",
        "rcv_nxt", "reach_at", "remote", "script", "snd_nxt", "sprays", "syn", "terms",
    )  # fmt: skip

    def __init__(self, index: int, candidate: Candidate, terms: Terms, outbox: list[Effect]) -> None:
        self.index = index
        self.offer, self.remote = candidate.offer, candidate.remote
        self.own_port, self.aim_port, self.after_s = candidate.own_port, candidate.aim_port, candidate.after_s
        self.lanes = _NO_LANES
        if candidate.own is not None and candidate.aims is not None:
            self.lanes = Rounds(candidate.own, candidate.aims, candidate.seed)
        self.terms = terms
        self.outbox = outbox
        self.evidence = Evidence()
        self.script: Script | None = None
        self.now = 0.0
        self.deadline: float | None = None
        self.fired_at: float | None = None
        self.reach_at: float | None = None
        self.syn: Syn | None = None
        self.own_syn: SegmentSeen | None = None
        self.snd_nxt: int | None = None
        self.rcv_nxt: int | None = None
        self.primed = self.answered = self.proven = self.connected = self.committed = self.closed = False
        self.early = self.given = self.handshake = self.moved = False
        self.calls = self.numbered = self.sprays = False
        self.meets = 0 if self.offer.fan is None else self.offer.fan.meets
        """Where the responder's NAT, which counts, is brought to."""
        self.fail_code: str | None = None
        self.fail_cause = ""
        self._interval = FIRST_REFIRE_S

    # -- what scripts say ------------------------------------------------------------------------------------

    @property
    def hole(self) -> int:
        """TTL of a primer: past our own NAT, short of the peer's."""
        return self.terms.hole_ttl

    @property
    def blind(self) -> bool:
        """This host knows only what its sockets say, and its kernel answers the peer by itself."""
        return self.terms.blind

    @property
    def stream(self) -> bool:
        """TCP rather than UDP."""
        return self.offer.technique.startswith("tcp")

    def number(self, label: str) -> None:
        """Sequence numbers from the nonce, the same at both ends and unknown to others: no SYN has to tell them."""
        a, b = secret_numbers(self.terms.nonce, label)
        self.snd_nxt, self.rcv_nxt = (a, b) if self.terms.initiating else (b, a)
        self.numbered = True

    def do(self, make: Callable[Concatenate[int, P], Effect], *args: P.args, **kwargs: P.kwargs) -> None:
        """Ask for an effect on this pair."""
        self.outbox.append(make(self.index, *args, **kwargs))

    def connect(self, ttl: int | None, *, stubborn: bool = False) -> None:
        """A SYN of ours is to leave."""
        self.evidence.connects = True
        self.outbox.append(Connect(self.index, ttl, stubborn))

    def tell(self, signal: Signal, ttl: int | None = None) -> None:
        """Signal the peer's punchd on the path. Sequence SND.UNA-1: no kernel takes it into the stream."""
        if signal is FIRE or signal is ANSWER:
            self.mark_fired()
        seq = ((self.snd_nxt or 0) - 1) & SEQ_MASK
        self.outbox.append(Tell(self.index, signal, ttl, seq, self.rcv_nxt or 0))

    def mark_fired(self) -> None:
        """The round trip is measured from here (the first time only)."""
        if self.fired_at is None:
            self.fired_at = self.now

    def say_primed(self, syn: Syn | None = None) -> None:
        """The hole is open; the peer may be told."""
        self.primed, self.syn = True, syn

    def say_answered(self, *, early: bool = False, handshake: bool = False) -> None:
        """The peer's FIRE came and was answered: from here on the responder may choose this pair.

        `early`: the socket is ESTABLISHED at once, though the peer has not proved that it hears us.
        `handshake`: when the kernel calls it ESTABLISHED, the peer's kernel has acknowledged our answer.
        """
        self.mark_fired()
        self.answered, self.early, self.handshake = True, early, handshake

    def say_proven(self) -> None:
        """The peer's answer came: both directions work."""
        self.proven = True

    def fail(self, code: str, cause: str) -> None:
        """This pair is lost for a reason that no waiting mends."""
        self.fail_code, self.fail_cause, self.deadline = code, cause, None

    def until(
        self, wanted: Wanted, again: Callable[[], None] | None = None, within_s: float | None = None,
        first_s: float = FIRST_REFIRE_S,
    ) -> Waiting:  # fmt: skip
        """Wait for an event, re-sending with `again` meanwhile, for the first time after `first_s`.

        With `within_s` instead, a DeadlinePassed is returned when the time is over.
        """
        if within_s is not None:
            self.deadline = self.now + within_s
        elif again is not None:
            self._interval = first_s
            self.deadline = self.now + self._interval
        else:
            self.deadline = None
        while True:
            event = yield
            if type(event) is DeadlinePassed:  # isinstance takes 0.1 µs for a struct that it is not
                if again is None:
                    self.deadline = None
                    return event
                again()
                self._interval = min(self._interval * REFIRE_GROWTH, REFIRE_CEILING_S)
                self.deadline = self.now + self._interval
            elif wanted(event):
                self.deadline = None
                return event

    def hold(self, wanted: Wanted, reprime: Callable[[], None], every_s: float) -> Waiting:
        """Wait for the peer's FIRE for as long as it takes; prime again before the hole ages."""
        while True:
            event = yield from self.until(wanted, within_s=every_s)
            if not isinstance(event, DeadlinePassed):
                return event
            reprime()

    def reopen(self) -> None:
        """The same SYN through a mapping made anew: a tracked SYN's timer is not refreshed by repeating it.

        nf_conntrack_proto_tcp.c: SYN_SENT stays 120 s from the first SYN; a RST clears an unreplied entry at once.
        """
        if self.own_syn is not None:
            self.do(Clear, ttl=self.hole, seq=(self.own_syn.seq + 1) & SEQ_MASK)
            self.do(Resend, self.own_syn.segment, self.hole)

    def insist(self, wanted: Wanted, again: Callable[[], None]) -> Waiting:
        """Fire at a peer that may not be ready, until it is heard."""
        began, least_s = self.now, TIMED_S if self.offer.timed else INSIST_S
        while True:
            pause_s = max(least_s, (self.now - began) * INSIST_SHARE)
            event = yield from self.until(wanted, within_s=pause_s)
            if not isinstance(event, DeadlinePassed):
                return event
            again()

    def opens(self, prime: Callable[[int | None], None], wanted: Wanted, every_s: float) -> Waiting:
        """The initiator's PRIME as the plan wants it, until the responder is heard; `prime` takes a TTL."""
        opening = self.offer.opening
        if opening is Opening.PRIMED:
            prime(self.hole)
            self.say_primed()
        if opening is Opening.PRIMED and not self.offer.timed:
            return (yield from self.hold(wanted, lambda: prime(self.hole), every_s))
        event = yield from self.bides(wanted)
        if event is not None and wanted(event):
            return event
        prime(None)
        self.say_primed()
        if opening is Opening.CALLED:
            return (yield from self.until(wanted, again=lambda: prime(None)))
        return (yield from self.insist(wanted, lambda: prime(None)))

    def bides(self, wanted: Wanted) -> Generator[None, ScriptEvent, ScriptEvent | None]:
        """Until the initiator may fire at full range: called, or after the plan's time; or until `wanted`."""
        within_s = None if self.offer.opening is Opening.CALLED else self.after_s
        if within_s == 0:
            return None
        self.say_primed()
        return (yield from self.until(lambda event: isinstance(event, Called) or wanted(event), within_s=within_s))

    def fires(self, every_s: float) -> Script:
        """The responder's FIRE as the plan wants it, until the initiator answers."""

        def fire() -> None:
            self.tell(FIRE)

        if self.waits:
            self.tell(FIRE, ttl=self.hole)
            self.calls = self.offer.opening is Opening.CALLED
            yield from self.hold(heard, lambda: self.tell(FIRE, ttl=self.hole), every_s)
        fire()
        if self.offer.timed:
            yield from self.until(heard, again=fire)
            if self.stream:
                yield from self.heard_by_kernel()
            if not self.has_answer:
                self.tell(COMMIT)
        elif self.offer.opening is Opening.CROSSED:
            yield from self.until(heard, again=fire)  # only now the initiator's hole is sure to be there
            if not self.has_answer:
                fire()
        if not self.has_answer:
            yield from self.until(lambda _: self.has_answer, again=fire)

    @property
    def has_answer(self) -> bool:
        """ANSWER came, or data, which only an application can have sent: a timed initiator had handed over."""
        return self.evidence.told(ANSWER) or (self.offer.timed and self.committed)

    @property
    def waits(self) -> bool:
        """The responder opens its own NAT and waits for the initiator's packet."""
        return self.offer.opening in _WAITED_FOR

    def heard_by_kernel(self) -> Script:
        """Wait until the made socket has taken a segment in: the ring sees what a rule of this host may drop."""
        self.evidence.deaf = True
        self.outbox.append(AskKernel(self.index))
        yield from self.until(lambda event: isinstance(event, KernelHeard))
        self.evidence.deaf = False

    def answers(self, soon_s: float | None = None) -> Script:
        """Say ANSWER, again when asked and unasked, until the responder has chosen this pair and our socket hears it.

        `soon_s`: for a responder that makes its socket on the first one, the second follows so soon.
        """
        wanted = signal(FIRE)
        while not self.committed:
            if soon_s is None:
                yield from self.until(lambda event: self.committed or wanted(event), lambda: self.tell(ANSWER))
            else:
                yield from self.until(lambda event: self.committed or wanted(event), within_s=soon_s)
                soon_s = None
            if not self.committed:
                self.tell(ANSWER)
        yield from self.heard_by_kernel()
        self.connected = True

    def repeat(self, stimulus: Wanted, again: Callable[[], None]) -> Script:
        """Until the attempt ends this pair: answer each repeated stimulus, and unasked with growing pauses."""
        while True:
            yield from self.until(stimulus, again)
            again()

    # -- what the attempt says -------------------------------------------------------------------------------

    def feed(self, event: ScriptEvent, now: float) -> ScriptEvent:
        """Take one event: evidence first, then the script. Returns it as understood: a signal is no mere segment."""
        if self.closed or self.script is None:
            return event
        if self.lanes.chosen is not None and self._is_of_another_lane(event):
            return event
        self.now = now
        event = self._witness(event)
        if self.fail_code is not None:
            return event
        try:
            self.script.send(event)
        except StopIteration:
            self.script = None
        return event

    def start(self, script: Script, now: float) -> None:
        """Run the script to its first wait."""
        self.script, self.now = script, now
        try:
            next(script)
        except StopIteration:
            self.script = None

    def silence(self) -> None:
        """End the script, and say no more to the peer: the kernel's repetitions die on their way, too."""
        self.deadline = None
        if self.script is not None:
            self.script.close()
            self.script = None
            if self.fail_code is None:
                self.do(SetTtl, ttl=self.hole)

    def close(self) -> None:
        """End the script; clear our NAT's mapping with a RST that dies on the way; let go of the port."""
        if self.closed:
            return
        self.closed, self.deadline = True, None
        if self.script is not None:
            self.script.close()
            self.script = None
        if self.snd_nxt is not None and not self.given and not self.blind:
            self.outbox.append(Clear(self.index, self.terms.hole_ttl, self.snd_nxt))
        self.outbox.append(ClosePair(self.index))

    def rtt_ms(self) -> float | None:
        """Path round trip, from our FIRE or ANSWER to the peer's reaction."""
        blurred = self.offer.timed and self.terms.initiating  # which of its packets was heard?
        if self.fired_at is None or self.reach_at is None or blurred:
            return None
        return round((self.reach_at - self.fired_at) * 1000, 2)

    def _is_of_another_lane(self, event: ScriptEvent) -> bool:
        if not isinstance(event, SegmentSeen | SignalSeen):
            return False
        return (event.local_port, event.remote_port) != self.lanes.chosen

    def _witness(self, event: ScriptEvent) -> ScriptEvent:
        seen = self.evidence
        match event:
            case SegmentSeen():
                return self._witness_segment(event)
            case SignalSeen():
                self._heard_signal(event.signal)
            case KernelHeard() | DeadlinePassed() | Called() | Withheld() | Located():
                pass
            case Connected():
                self.connected = True
                if self.handshake or not self.terms.initiating:
                    self.reach_at = self.now
            case SocketFailed():
                seen.errno = event.errno
                if not self.given:
                    self.fail(
                        "reset-by-peer-side" if event.errno in _RESET else "socket-lost", os.strerror(event.errno)
                    )
            case IcmpSeen():
                if seen.icmp is None or event.type != _TIME_EXCEEDED:  # a primer's death hides no refusal
                    seen.icmp = (event.type, event.code, event.sender)
            case StraySeen():
                if event.flags & SYN:
                    seen.other_port, seen.other_syn_ack = event.port, event.flags & ACK != 0
            case PacketRefused():
                seen.send_errno = event.errno
            case EffectFailed():
                seen.failed_effect = event.effect
                self.fail(event.code, event.cause)
            case Readable():
                self.committed = True
        return event

    def _witness_segment(self, event: SegmentSeen) -> ScriptEvent:
        seen, kind = self.evidence, event.flags & _KIND
        if event.outgoing:
            if kind == SYN:
                seen.own_syn, self.own_syn = True, event
            elif kind == SYN_ACK:
                seen.own_syn_ack = True
            if kind & SYN and not self.numbered:
                self.snd_nxt = (event.seq + 1) & SEQ_MASK
                self.rcv_nxt = event.ack if kind & ACK else self.rcv_nxt
            return event
        if event.flags & RST:
            if seen.rst_ttl is None:
                seen.rst_ttl = event.ttl
            return event
        if seen.peer_ttl is None or seen.peer_ttl < event.ttl:
            seen.peer_ttl = event.ttl
        if kind & SYN:
            seen.peer_syn |= kind == SYN
            seen.peer_syn_ack |= kind == SYN_ACK
            seen.acknowledged |= kind == SYN_ACK and event.ack == self.snd_nxt
            if not self.numbered:
                self.rcv_nxt = (event.seq + 1) & SEQ_MASK
        elif self.snd_nxt is not None and self.rcv_nxt is not None:
            signal = BY_WINDOW.get(event.window)
            right = event.seq == (self.rcv_nxt - 1) & SEQ_MASK and event.ack == self.snd_nxt
            if signal is not None and right:
                self._heard_signal(signal)
                return SignalSeen(self.index, signal, event.local_port, event.remote_port)
        return event

    def _heard_signal(self, signal: Signal) -> None:
        self.evidence.signals |= 1 << signal
        if signal is COMMIT:
            self.committed = True
        if (signal is ANSWER or signal is COMMIT) and self.reach_at is None:
            self.reach_at = self.now


_KIND = SYN_ACK | RST
_WAITED_FOR = (Opening.REFIRED, Opening.CALLED)
_RESET = {104, 111}  # ECONNRESET, ECONNREFUSED
_TIME_EXCEEDED = 11  # RFC 792
