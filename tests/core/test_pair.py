"""One pair: what it witnesses, how it waits and repeats itself, how it ends.
It refuses to test any technique: the scripts here are made for the test."""

from __future__ import annotations

import pytest
from acts import ISN_A, ISN_B, NONCE, SYN_OF_A, candidate, own_syn, own_syn_ack, peer_syn, peer_syn_ack, seen, those
from msgspec.structs import replace

from punchd.core.pair import FIRST_REFIRE_S, REFIRE_CEILING_S, REFIRE_GROWTH, Pair
from punchd.core.script import Script, connected, never, own, peers, signal
from punchd.core.terms import Terms
from punchd.words.effects import Abort, Clear, ClosePair, Effect, Resend, Tell
from punchd.words.events import (
    ACK,
    RST,
    SYN,
    SYN_ACK,
    WINDOWS,
    Connected,
    DeadlinePassed,
    EffectFailed,
    IcmpSeen,
    PacketRefused,
    Readable,
    Signal,
    SignalSeen,
    SocketFailed,
    StraySeen,
)


def a_pair(script: Script | None = None, *, initiating: bool = True, blind: bool = False) -> tuple[Pair, list[Effect]]:
    outbox: list[Effect] = []
    pair = Pair(0, candidate("tcp-simopen"), Terms(initiating, NONCE, blind=blind), outbox)
    pair.start(waits_for_ever(pair) if script is None else script, 0.0)
    return pair, outbox


def waits_for_ever(pair: Pair) -> Script:
    yield from pair.until(never)


# -- waiting -----------------------------------------------------------------------------------------------------


def test_a_wait_repeats_the_last_word_with_growing_pauses() -> None:
    """No technique waits for the kernel's retransmission, and none floods."""
    outbox: list[Effect] = []
    pair = Pair(0, candidate("udp"), Terms(True, NONCE), outbox)

    def script() -> Script:
        yield from pair.until(never, again=lambda: pair.do(Abort))

    pair.start(script(), 0.0)
    pauses = []
    now = 0.0
    for _ in range(12):
        assert pair.deadline is not None
        pauses.append(pair.deadline - now)
        now = pair.deadline
        pair.feed(DeadlinePassed(), now)
    assert pytest.approx(FIRST_REFIRE_S) == pauses[0]
    assert pytest.approx(FIRST_REFIRE_S * REFIRE_GROWTH) == pauses[1]
    assert pytest.approx(REFIRE_CEILING_S) == pauses[-1]
    assert 12 == len(those(Abort, outbox))


def test_a_bounded_wait_returns_the_deadline() -> None:
    """What a script does about silence is its own business."""
    got: list[object] = []
    pair, _ = a_pair()

    def script() -> Script:
        got.append((yield from pair.until(never, within_s=0.5)))

    pair.start(script(), 1.0)
    assert 1.5 == pair.deadline
    pair.feed(DeadlinePassed(), 1.5)
    assert [DeadlinePassed()] == got
    assert pair.deadline is None
    assert pair.script is None


def test_a_wait_without_repetition_has_no_deadline() -> None:
    """The attempt's own end is its only limit."""
    pair, _ = a_pair()
    assert pair.deadline is None


def test_repeat_answers_each_stimulus_at_once_and_unasked_later() -> None:
    """The peer's re-fired word is a cry for our answer, which got lost."""
    outbox: list[Effect] = []
    pair = Pair(0, candidate("udp"), Terms(True, NONCE), outbox)
    pair.start(pair.repeat(peers(SYN), lambda: pair.do(Abort)), 0.0)
    pair.feed(peer_syn(), 0.05)
    pair.feed(peer_syn(), 0.10)
    assert 2 == len(outbox)
    pair.feed(DeadlinePassed(), 0.25)
    assert 3 == len(outbox)
    pair.feed(Connected(0), 0.26)
    assert 3 == len(outbox)


def test_predicates_know_direction_and_flags() -> None:
    """An own SYN is not the peer's, and a SYN-ACK is no SYN."""
    assert own(SYN)(own_syn())
    assert not own(SYN)(peer_syn())
    assert not own(SYN)(own_syn_ack())
    assert not own(SYN)(Connected(0))
    assert peers(SYN_ACK)(peer_syn_ack())
    assert not peers(SYN)(own_syn())
    assert not peers(SYN)(DeadlinePassed())
    assert signal(Signal.FIRE)(SignalSeen(0, Signal.FIRE))
    assert not signal(Signal.FIRE)(SignalSeen(0, Signal.ANSWER))
    assert not signal(Signal.FIRE)(Connected(0))
    assert connected(Connected(0))
    assert not connected(Readable(0))
    assert not never(Connected(0))


def test_a_held_hole_is_primed_again_before_it_ages() -> None:
    """The side channel may take minutes; what came in the meantime ends the wait."""
    got: list[object] = []
    outbox: list[Effect] = []
    pair = Pair(0, candidate("udp"), Terms(True, NONCE), outbox)

    def script() -> Script:
        got.append((yield from pair.hold(peers(SYN), lambda: pair.do(Abort), 100.0)))

    pair.start(script(), 0.0)
    for turn in (1, 2, 3):
        assert turn * 100.0 == pair.deadline
        pair.feed(DeadlinePassed(), turn * 100.0)
    assert 3 == len(those(Abort, outbox))
    pair.feed(peer_syn(), 301.0)
    assert [peer_syn()] == got


def test_a_tracked_syn_is_renewed_through_a_fresh_mapping() -> None:
    """A repeated SYN does not refresh conntrack's 120 s: a RST at hole range clears it, then the same SYN again."""
    pair, outbox = a_pair()
    pair.reopen()
    assert [] == outbox  # nothing left yet, so nothing to renew
    pair.feed(own_syn(), 0.0)
    pair.reopen()
    assert [Clear(0, ttl=2, seq=ISN_A + 1), Resend(0, b"segment", 2)] == outbox


def test_scripts_say_how_far_they_came() -> None:
    """The attempt's rules are made of these words."""
    pair, _ = a_pair()
    assert (2, False) == (pair.hole, pair.blind)
    pair.say_primed(SYN_OF_A)
    pair.say_answered(early=True)
    pair.say_proven()
    assert (True, SYN_OF_A, True, True, True) == (pair.primed, pair.syn, pair.answered, pair.early, pair.proven)


# -- witnessing --------------------------------------------------------------------------------------------------


def test_segments_leave_evidence_and_numbers() -> None:
    """Signals and the clearing RST need both sequence numbers."""
    pair, _ = a_pair()
    pair.feed(own_syn(), 0.0)
    assert (ISN_A + 1, None) == (pair.snd_nxt, pair.rcv_nxt)
    pair.feed(peer_syn(), 0.1)
    assert ISN_B + 1 == pair.rcv_nxt
    pair.feed(own_syn_ack(), 0.1)
    assert pair.evidence.own_syn
    assert pair.evidence.own_syn_ack
    assert pair.evidence.peer_syn
    assert not pair.evidence.peer_syn_ack
    pair.feed(peer_syn_ack(seq=ISN_B + 7), 0.2)
    assert ISN_B + 8 == pair.rcv_nxt
    assert pair.evidence.heard()


def test_own_bare_acks_leave_no_evidence() -> None:
    """A primer of ours says nothing about the peer."""
    pair, _ = a_pair()
    pair.feed(seen(0, ACK, outgoing=True, seq=1), 0.0)
    assert not pair.evidence.own_syn
    assert pair.snd_nxt is None


def test_the_first_reset_is_remembered_by_its_ttl() -> None:
    """Its TTL tells whether a NAT or the host sent it; later ones are echoes."""
    pair, _ = a_pair()
    pair.feed(seen(0, RST), 0.0)
    pair.feed(seen(0, RST | ACK), 0.1)
    assert 64 == pair.evidence.rst_ttl


@pytest.mark.parametrize(("seq", "ack", "window", "heard"), [
    (ISN_B, ISN_A + 1, WINDOWS[Signal.COMMIT], True),
    (ISN_B + 1, ISN_A + 1, WINDOWS[Signal.COMMIT], False),
    (ISN_B, ISN_A, WINDOWS[Signal.COMMIT], False),
    (ISN_B, ISN_A + 1, 64240, False),
])  # fmt: skip
def test_only_the_right_numbers_make_a_signal(seq: int, ack: int, window: int, heard: bool) -> None:
    """A stranger off the path can't forge a COMMIT: it would have to guess 64 bits."""
    pair, _ = a_pair()
    pair.feed(own_syn(), 0.0)
    pair.feed(peer_syn_ack(), 0.1)
    pair.feed(seen(0, ACK, seq=seq, ack=ack, window=window), 0.2)
    assert heard == pair.committed
    assert heard == bool(pair.evidence.signals)


def test_numbers_wrap_around() -> None:
    """2^32 - 1 is followed by 0."""
    pair, outbox = a_pair()
    pair.feed(own_syn(seq=0xFFFFFFFF), 0.0)
    assert 0 == pair.snd_nxt
    pair.tell(Signal.PRIME)
    assert 0xFFFFFFFF == those(Tell, outbox)[0].seq


def test_no_signal_without_numbers() -> None:
    """Before both sides' numbers are known any window is just a window."""
    pair, _ = a_pair()
    pair.feed(seen(0, ACK, window=WINDOWS[Signal.COMMIT]), 0.0)
    assert not pair.committed


def test_the_round_trip_is_from_our_word_to_the_peers_reaction() -> None:
    """FIRE itself is no reaction to anything."""
    pair, _ = a_pair(initiating=False)
    assert pair.rtt_ms() is None
    pair.now = 1.0
    pair.tell(Signal.FIRE)
    pair.feed(SignalSeen(0, Signal.FIRE), 1.01)
    assert pair.rtt_ms() is None
    pair.feed(SignalSeen(0, Signal.ANSWER), 1.1)
    pair.feed(SignalSeen(0, Signal.ANSWER), 1.2)
    assert pytest.approx(100.0) == pair.rtt_ms()


def test_an_initiators_connect_is_a_reaction_only_after_its_answer() -> None:
    """In syni the stack is connected by the peer's FIRE."""
    pair, _ = a_pair(initiating=True)
    pair.feed(Connected(0), 0.1)
    assert pair.connected
    assert pair.reach_at is None
    pair.say_answered(handshake=True)
    pair.feed(Connected(0), 0.2)
    assert 0.2 == pair.reach_at


def test_icmp_and_readable_are_written_down() -> None:
    """The verdict wants the first, the one-connection rule the second."""
    pair, _ = a_pair()
    pair.feed(IcmpSeen(0, 3, 13, "203.0.113.1"), 0.0)
    assert (3, 13, "203.0.113.1") == pair.evidence.icmp
    assert not pair.committed
    pair.feed(Readable(0), 0.1)
    assert pair.committed


def test_death_of_a_primer_hides_no_refusal() -> None:
    """A primer is sent again while its hole ages: the error that tells something came long before."""
    pair, _ = a_pair()
    for kind, code, sender in ((11, 0, "198.18.12.1"), (3, 13, "203.0.113.1"), (11, 0, "198.18.12.1")):
        pair.feed(IcmpSeen(0, kind, code, sender), 0.0)
    assert (3, 13, "203.0.113.1") == pair.evidence.icmp


def test_strays_and_refused_packets_are_written_down_and_change_nothing() -> None:
    """A SYN from another port tells of the peer's NAT; a RST from there tells nothing. Both scripts go on."""
    pair, _ = a_pair()
    pair.feed(StraySeen(0, 40000, SYN, 60), 0.0)
    pair.feed(StraySeen(0, 40001, RST, 60), 0.0)
    pair.feed(PacketRefused(0, "Tell", 1), 0.0)
    assert (40000, 1) == (pair.evidence.other_port, pair.evidence.send_errno)
    assert pair.fail_code is None
    assert not pair.evidence.heard()


def test_peers_own_ttl_is_that_of_its_segments_and_not_of_resets() -> None:
    """It is what a reset's TTL is compared with."""
    pair, _ = a_pair()
    for flags, ttl in ((RST, 64), (SYN, 57), (SYN, 2)):
        pair.feed(replace(peer_syn(), flags=flags, ttl=ttl), 0.0)
    assert (57, 64) == (pair.evidence.peer_ttl, pair.evidence.rst_ttl)


# -- failing and ending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errno", "code"), [(111, "reset-by-peer-side"), (104, "reset-by-peer-side"), (113, "socket-lost")]
)
def test_a_socket_that_fails_loses_the_pair(errno: int, code: str) -> None:
    """The kernel won't try again, so waiting is vain."""
    pair, _ = a_pair()
    pair.feed(SocketFailed(0, errno), 0.0)
    assert code == pair.fail_code
    assert errno == pair.evidence.errno
    assert pair.fail_cause


def test_a_socket_that_fails_later_loses_the_pair_too() -> None:
    """Counterexample: a late RST killed midstream's socket, COMMIT came, and the dead socket was handed over."""
    pair, _ = a_pair()
    pair.feed(Connected(0), 0.0)
    pair.feed(SocketFailed(0, 104), 0.1)
    assert "reset-by-peer-side" == pair.fail_code


def test_a_socket_that_fails_at_the_application_is_not_ours() -> None:
    """After the hand-over its errors are the application's to read."""
    pair, _ = a_pair()
    pair.given = True
    pair.feed(SocketFailed(0, 104), 0.1)
    assert pair.fail_code is None


def test_a_failed_effect_loses_the_pair() -> None:
    """The code comes from the edge."""
    pair, _ = a_pair()
    pair.feed(EffectFailed(0, "Connect", "port-taken", "in use"), 0.0)
    assert ("port-taken", "in use") == (pair.fail_code, pair.fail_cause)
    assert "Connect" == pair.evidence.failed_effect


def test_a_lost_pair_still_witnesses_but_its_script_is_not_woken() -> None:
    """The verdict at the end is the richer for it."""
    woken: list[object] = []
    pair, _ = a_pair()

    def script() -> Script:
        while True:
            woken.append((yield))

    pair.start(script(), 0.0)
    pair.fail("host-refused", "")
    pair.feed(peer_syn(), 0.1)
    assert [] == woken
    assert pair.evidence.peer_syn


def test_closing_clears_the_mapping_once() -> None:
    """A RST at hole range: our NAT forgets, the peer never sees it."""
    pair, outbox = a_pair()
    pair.feed(own_syn(), 0.0)
    pair.close()
    pair.close()
    assert [Clear(0, ttl=2, seq=ISN_A + 1), ClosePair(0)] == outbox
    pair.feed(peer_syn(), 0.1)
    assert not pair.evidence.peer_syn


@pytest.mark.parametrize("blind", [True, False])
def test_nothing_is_cleared_that_was_not_opened_or_cannot_be(blind: bool) -> None:
    """Without a number, or without raw sockets, there is only the port to let go."""
    pair, outbox = a_pair(blind=blind)
    if blind:
        pair.snd_nxt = 7
    pair.close()
    assert [ClosePair(0)] == outbox


def test_what_the_application_has_is_not_cleared() -> None:
    """The RST would end its connection."""
    pair, outbox = a_pair()
    pair.feed(own_syn(), 0.0)
    pair.given = True
    pair.close()
    assert [ClosePair(0)] == outbox


def test_a_script_that_ends_is_let_go() -> None:
    """Whether at its first step or later."""

    def short() -> Script:
        return
        yield

    pair, _ = a_pair(short())
    assert pair.script is None
    pair.feed(peer_syn(), 0.0)  # nobody listens, nothing breaks
    assert not pair.evidence.peer_syn
