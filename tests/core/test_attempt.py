"""Attempts: when the notification leaves, who chooses, who hands over what, and how all this ends.
It refuses to model a net: events are fed by hand (tests/core/test_agreement.py holds the theory)."""

from __future__ import annotations

import random

import pytest
from acts import (
    ISN_A,
    ISN_B,
    LOCAL,
    NONCE,
    A,
    B,
    begun,
    feed,
    initiating,
    notified,
    own_syn,
    own_syn_ack,
    peer_syn,
    peer_syn_ack,
    responding,
    seen,
    signalled,
    those,
)

from punchd.core.attempt import LINGER_S, Attempt, State
from punchd.core.initiating import LOSERS_S, REDRAWS, Initiating
from punchd.core.ports import Ports
from punchd.core.responding import STAGGER_S, TURN_S, Responding
from punchd.core.terms import Terms
from punchd.words.addresses import Endpoint
from punchd.words.effects import Clear, ClosePair, Connect, Finish, HandOver, Notify, OpenPair, Report, SetTtl, Tell
from punchd.words.events import (
    ACK,
    Cancelled,
    Connected,
    DeadlinePassed,
    EffectFailed,
    KernelHeard,
    Readable,
    Settled,
    Signal,
    SignalSeen,
    SocketFailed,
)
from punchd.words.notification import Opening
from punchd.words.outcomes import Failed, Punched
from punchd.words.plan import Row


def refused(pair: int, code: str = "port-taken") -> EffectFailed:
    return EffectFailed(pair, "OpenPair", code, "refused")


# -- the initiator primes and notifies ---------------------------------------------------------------------------


def test_the_notification_waits_until_all_is_performed() -> None:
    """A port that turns out to be taken must not be in it."""
    attempt = initiating("tcp-simopen")
    assert [] == those(Notify, attempt.begin())
    assert State.PRIMING is attempt.state
    notify = those(Notify, attempt.step(Settled(), 0.0))[0]
    assert State.EXCHANGING is attempt.state
    assert ["tcp-simopen"] == [offer.technique for offer in notify.notification.offers]
    assert 10_000 == notify.notification.patience_ms
    assert notify.notification.in_turn


def test_the_notification_waits_for_every_primer() -> None:
    """syni has nothing to say before its SYN was seen."""
    attempt = initiating("tcp-simopen", "tcp-syni")
    assert [] == those(Notify, begun(attempt))
    notify = those(Notify, attempt.step(own_syn(1), 0.0))[0]
    assert ["tcp-simopen", "tcp-syni"] == [offer.technique for offer in notify.notification.offers]


def test_a_taken_port_is_drawn_afresh() -> None:
    """Some other program's bind is no reason to lose a technique."""
    attempt = initiating("tcp-simopen")
    first = those(OpenPair, attempt.begin())[0]
    effects = attempt.step(refused(0), 0.0)
    assert [ClosePair(0)] == those(ClosePair, effects)
    assert first.local_port != those(OpenPair, effects)[0].local_port
    assert 0 == those(OpenPair, effects)[0].pair
    assert 1 == len(those(Notify, attempt.step(Settled(), 0.0)))


def test_fresh_ports_are_not_drawn_for_ever() -> None:
    """When everything is taken the attempt says so."""
    attempt = initiating("tcp-simopen")
    attempt.begin()
    for _ in range(REDRAWS):
        assert [] == those(Finish, attempt.step(refused(0), 0.0))
    attempt.step(refused(0), 0.0)
    assert "port-taken" == those(Finish, attempt.step(Settled(), 0.0))[0].outcome.code
    assert attempt.done


def test_other_refusals_cost_one_technique_only() -> None:
    """The offers that were primed go out."""
    attempt = initiating("tcp-midstream", "tcp-simopen")
    attempt.begin()
    assert [] == attempt.step(refused(0, "host-refused"), 0.0)
    notify = those(Notify, attempt.step(Settled(), 0.0))[0]
    assert ["tcp-simopen"] == [offer.technique for offer in notify.notification.offers]


def test_nothing_primed_is_the_end() -> None:
    """A notification without offers would help nobody; each technique's failure is reported."""
    attempt = initiating("tcp-midstream", "tcp-simopen")
    attempt.begin()
    feed(attempt, 0.0, refused(0, "host-refused"), refused(1, "host-refused"))
    effects = attempt.step(Settled(), 0.0)
    assert ["failed", "failed"] == [report.progress.stage for report in those(Report, effects)]
    assert 1 == len(those(Finish, effects))


# -- the initiator hands over ------------------------------------------------------------------------------------


def test_the_only_answered_pair_needs_no_commit() -> None:
    """The peer's kernel has acknowledged it, and no other can be chosen: the others fall silent unanswered."""
    attempt = initiating("tcp-simopen", "tcp-simopen")
    begun(attempt)
    feed(attempt, 0.1, own_syn(0), peer_syn(0), own_syn_ack(0))
    effects = attempt.step(Connected(0), 0.2)
    assert [SetTtl(1, 2)] == [effect for effect in those(SetTtl, effects) if effect.pair == 1]
    assert [0] == [close.pair for close in those(ClosePair, effects)]
    outcome = those(HandOver, effects)[0].outcome
    assert isinstance(outcome, Punched)
    assert Endpoint("10.0.1.2", attempt.pairs[0].offer.initiator_port) == outcome.local
    assert (100.0, 200.0) == (outcome.rtt_ms, outcome.elapsed_ms)


def test_losers_keep_their_mappings_for_what_is_under_way_to_them() -> None:
    """A stray at a NAT that punishes them would end the very connection that was won."""
    attempt = initiating("tcp-simopen", "tcp-simopen")
    begun(attempt)
    feed(attempt, 0.1, own_syn(0), own_syn(1), peer_syn(0), own_syn_ack(0), Connected(0))
    assert State.LINGERING is attempt.state
    assert 0.1 + LOSERS_S == attempt.deadline
    assert [] == feed(attempt, 0.2, peer_syn(1), own_syn_ack(1), Connected(1))
    effects = attempt.step(DeadlinePassed(), 0.1 + LOSERS_S)
    assert [Clear(1, 2, ISN_A + 1), ClosePair(1)] == effects
    assert attempt.done


def test_of_two_answered_pairs_only_the_committed_is_taken() -> None:
    """The responder may have chosen either."""
    attempt = initiating("tcp-simopen", "tcp-simopen")
    begun(attempt)
    for pair in (0, 1):
        feed(attempt, 0.1, own_syn(pair), peer_syn(pair), own_syn_ack(pair))
    assert [] == those(HandOver, feed(attempt, 0.2, Connected(0), Connected(1)))
    effects = attempt.step(signalled(attempt.pairs[1], Signal.COMMIT), 0.3)
    assert [1] == [over.pair for over in those(HandOver, effects)]
    assert ["failed"] == [report.progress.stage for report in those(Report, effects)]


def test_what_the_kernel_answered_by_itself_counts_as_answered() -> None:
    """Counterexample: syni's SYN was crossed, its SYN-ACK reached the peer, and both sides took another pair."""
    attempt = initiating("tcp-simopen", "tcp-syni")
    begun(attempt)
    feed(attempt, 0.0, own_syn(0), own_syn(1))
    feed(attempt, 0.1, peer_syn(1), own_syn_ack(1), peer_syn(0), own_syn_ack(0))
    assert [] == attempt.step(Connected(0), 0.2)
    assert 1 == len(those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.3)))


def test_what_the_kernel_calls_connected_counts_as_answered() -> None:
    """Counterexample: the socket was read before the ring, which still held pair 0's SYN-ACK."""
    attempt = initiating("tcp-simopen", "tcp-simopen")
    begun(attempt)
    feed(attempt, 0.0, own_syn(0), own_syn(1))
    assert [] == those(HandOver, feed(attempt, 0.2, Connected(0), Connected(1), peer_syn(1), own_syn_ack(1)))
    assert [] == those(HandOver, feed(attempt, 0.2, peer_syn(0), own_syn_ack(0)))
    effects = attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.2)
    assert [0] == [over.pair for over in those(HandOver, effects)]


def test_what_opens_alike_is_one_try() -> None:
    """It leaves together. What comes after that has failed is another one, and so is each technique of a list."""

    def tries(*openings: Opening, in_turn: bool) -> int:
        attempt = Initiating(
            terms=Terms(True, NONCE), local=LOCAL, public=A, remote=B, ports=Ports(random.Random(1)), timeout_s=10.0,
            rows=[Row("udp", opening) for opening in openings], now=0.0, in_turn=in_turn,
        )  # fmt: skip
        begun(attempt)
        for signal in (Signal.FIRE, Signal.COMMIT):
            effects = attempt.step(SignalSeen(len(openings) - 1, signal), 0.1)
        (handed,) = those(HandOver, effects)
        assert handed.outcome is not None
        return handed.outcome.tries

    primed, refired, crossed = Opening.PRIMED, Opening.REFIRED, Opening.CROSSED
    assert [1, 1, 2, 3] == [
        tries(*openings, in_turn=False)
        for openings in ((refired,), (primed, primed), (primed, primed, refired), (primed, refired, crossed))
    ]
    assert 3 == tries(primed, primed, primed, in_turn=True)


def test_stream_data_is_as_good_as_a_commit() -> None:
    """Only the peer's application can have sent it."""
    attempt = initiating("tcp-midstream")
    begun(attempt)
    attempt.step(signalled(attempt.pairs[0], Signal.FIRE), 0.1)
    assert [] == those(HandOver, attempt.step(Readable(0), 0.2))
    assert [0] == [over.pair for over in those(HandOver, attempt.step(KernelHeard(0), 0.2))]


def test_a_commit_before_the_kernel_is_ready_is_remembered() -> None:
    """The COMMIT may overtake the ACK that makes the socket ESTABLISHED."""
    attempt = initiating("tcp-simopen", "tcp-simopen")
    begun(attempt)
    for pair in (0, 1):
        feed(attempt, 0.1, own_syn(pair), peer_syn(pair), own_syn_ack(pair))
    assert [] == those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.2))
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.21)))


def test_a_lost_pair_is_never_handed_over() -> None:
    """Not even if the peer commits to it."""
    attempt = initiating("tcp-midstream", "tcp-simopen")
    begun(attempt)
    attempt.step(signalled(attempt.pairs[0], Signal.FIRE), 0.1)
    attempt.step(EffectFailed(0, "Tell", "host-refused", "EPERM"), 0.1)
    assert [] == those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.2))


def test_when_every_pair_is_lost_nobody_waits() -> None:
    """The caller hears at once, not after its timeout."""
    attempt = initiating("tcp-simopen")
    begun(attempt)
    attempt.step(own_syn(), 0.0)
    effects = attempt.step(SocketFailed(0, 111), 0.1)
    assert "reset-by-peer-side" == those(Finish, effects)[0].outcome.code


# -- early -------------------------------------------------------------------------------------------------------


def test_early_gives_the_socket_first_and_the_word_later() -> None:
    """For applications that bring their own handshake."""
    attempt = initiating("tcp-midstream", "tcp-simopen", early=True)
    begun(attempt)
    effects = attempt.step(signalled(attempt.pairs[0], Signal.FIRE), 0.1)
    assert [True] == [over.early for over in those(HandOver, effects)]
    assert [SetTtl(1, 2)] == [effect for effect in those(SetTtl, effects) if effect.pair == 1]
    attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.2)
    effects = attempt.step(KernelHeard(0), 0.2)
    assert [] == those(HandOver, effects)
    assert isinstance(those(Finish, effects)[0].outcome, Punched)
    assert State.LINGERING is attempt.state


def test_early_waits_while_two_pairs_are_answered() -> None:
    """Which of them the responder takes is not known."""
    attempt = initiating("tcp-simopen", "tcp-midstream", early=True)
    begun(attempt)
    feed(attempt, 0.1, own_syn(0), peer_syn(0), own_syn_ack(0))
    assert [] == those(HandOver, attempt.step(signalled(attempt.pairs[1], Signal.FIRE), 0.1))


def test_early_without_proof_ends_in_an_error() -> None:
    """The application has the socket and is told not to trust it."""
    attempt = initiating("tcp-midstream", early=True)
    begun(attempt)
    attempt.step(signalled(attempt.pairs[0], Signal.FIRE), 0.1)
    effects = attempt.step(DeadlinePassed(), 10.0)
    assert "answer-unacknowledged" == those(Finish, effects)[0].outcome.code


# -- the responder -----------------------------------------------------------------------------------------------


def test_pairs_of_auto_start_staggered() -> None:
    """Each has a fair chance before the next starts."""
    attempt = responding("tcp-simopen", "tcp-midstream")
    assert [0] == [opened.pair for opened in those(OpenPair, attempt.begin())]
    assert STAGGER_S == attempt.deadline
    effects = attempt.step(DeadlinePassed(), STAGGER_S)
    assert [1] == [opened.pair for opened in those(OpenPair, effects)]
    assert [] == those(ClosePair, effects)
    assert ["trying"] == [report.progress.stage for report in those(Report, effects)]


def test_pairs_of_a_list_get_their_turn() -> None:
    """`in order until one succeeds`; a turn is longer than any technique needs."""
    attempt = responding("tcp-simopen", "tcp-midstream", in_turn=True)
    attempt.begin()
    attempt.step(own_syn(0, ISN_B), 0.0)
    assert [] == those(OpenPair, attempt.step(DeadlinePassed(), 0.2))
    effects = attempt.step(DeadlinePassed(), TURN_S)
    assert [1] == [opened.pair for opened in those(OpenPair, effects)]
    assert [] == those(ClosePair, effects)


@pytest.mark.parametrize("who", ["blind", "peer_blind"])
def test_with_a_blind_side_pairs_never_overlap(who: str) -> None:
    """It can't be told which of two it is to take."""
    attempt = responding("tcp-simopen", "tcp-direct", blind=who == "blind", peer_blind=who == "peer_blind")
    attempt.begin()
    effects = attempt.step(DeadlinePassed(), TURN_S)
    assert [0] == [close.pair for close in those(ClosePair, effects)]
    assert [1] == [opened.pair for opened in those(OpenPair, effects)]


def test_what_cannot_run_here_is_passed_over() -> None:
    """The peer's host may be able to do more."""
    theirs = responding("tcp-midstream", "tcp-simopen")
    attempt = Responding(
        terms=theirs.terms, local=theirs.local, runnable=frozenset({"tcp-simopen"}), timeout_s=1.0, now=0.0,
        ports=Ports(random.Random(1)),
        notification=notified("tcp-midstream", "tcp-simopen"),
    )  # fmt: skip
    assert ["tcp-simopen"] == [opened.technique for opened in those(OpenPair, attempt.begin())]


def test_a_refused_pair_makes_room_for_the_next_at_once() -> None:
    """A reset won't turn into success by waiting."""
    attempt = responding("tcp-simopen", "tcp-midstream", in_turn=True)
    attempt.begin()
    effects = attempt.step(SocketFailed(0, 111), 0.1)
    assert [1] == [opened.pair for opened in those(OpenPair, effects)]


def test_the_first_proven_pair_is_chosen_and_said_so() -> None:
    """Losers fall silent, then COMMIT, then the socket: in this order."""
    attempt = responding("tcp-simopen", "tcp-simopen")
    attempt.begin()
    attempt.step(own_syn(0, ISN_B), 0.0)
    attempt.step(DeadlinePassed(), STAGGER_S)
    feed(attempt, 0.15, own_syn(1, ISN_B), peer_syn_ack(1, ISN_A, ISN_B + 1))
    effects = attempt.step(Connected(1), 0.15)
    assert [0] == [silent.pair for silent in those(SetTtl, effects)]
    assert [Signal.COMMIT] == [tell.signal for tell in those(Tell, effects)]
    assert [1] == [over.pair for over in those(HandOver, effects)]
    kinds = [type(effect) for effect in effects if isinstance(effect, SetTtl | Tell | HandOver)]
    assert [SetTtl, Tell, HandOver] == kinds
    assert State.LINGERING is attempt.state


def test_a_lingering_responder_repeats_its_commit() -> None:
    """A lost COMMIT costs time, not agreement. (It was lost for good: the ring's ANSWER was not known as one.)"""
    attempt = _lingering()
    assert 0.2 + LINGER_S == attempt.deadline
    effects = attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 1.0)
    assert [Signal.COMMIT] == [tell.signal for tell in those(Tell, effects)]
    assert 1.0 + LINGER_S == attempt.deadline
    assert [] == attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 1.1)
    assert [] == attempt.step(DeadlinePassed(), 1.2)
    assert [ClosePair(0)] == attempt.step(DeadlinePassed(), 1.0 + LINGER_S)
    assert attempt.done


def test_a_lingering_responder_knows_an_answer_of_the_kernel() -> None:
    """In simopen the answer is a SYN-ACK; its own segments and RSTs are none."""
    attempt = responding("tcp-simopen")
    attempt.begin()
    feed(attempt, 0.1, own_syn(0, ISN_B), peer_syn_ack(0, ISN_A), Connected(0))
    assert State.LINGERING is attempt.state
    assert 1 == len(those(Tell, attempt.step(peer_syn_ack(0, ISN_A), 0.2)))
    assert [] == attempt.step(own_syn_ack(0, ISN_B), 0.3)
    assert [] == attempt.step(seen(0, ACK), 0.4)
    assert [] == attempt.step(Readable(0), 0.5)


def test_a_lingering_responder_has_had_its_final_word() -> None:
    """A cancel ends the lingering without another outcome."""
    assert [ClosePair(0)] == _lingering().step(Cancelled("cancelled"), 0.5)


def test_when_no_offer_is_left_nobody_waits() -> None:
    """The last refusal is the end."""
    attempt = responding("tcp-simopen")
    attempt.begin()
    attempt.step(own_syn(), 0.0)
    effects = attempt.step(SocketFailed(0, 111), 0.1)
    assert "reset-by-peer-side" == those(Finish, effects)[0].outcome.code
    assert attempt.done


# -- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: initiating("tcp-simopen"), lambda: responding("tcp-simopen")])
def test_peer_silence_ends_with_a_verdict(make: object) -> None:
    """Not `timeout`: what was seen, and what would help."""
    attempt = make()
    begun(attempt)
    attempt.step(own_syn(), 0.0)
    now = 0.0
    finals: list[Finish] = []
    while attempt.deadline is not None:
        assert attempt.deadline > now
        now = attempt.deadline
        finals += those(Finish, attempt.step(DeadlinePassed(), now))
    assert 10.0 == now
    assert ["nothing-heard"] == [final.outcome.code for final in finals]


def test_nothing_is_fired_when_the_time_is_over() -> None:
    """Its SYN could not be seen any more, and the verdict would blame this host for that."""
    attempt = responding("tcp-simopen", "tcp-direct", in_turn=True, timeout_s=TURN_S)
    begun(attempt)
    attempt.step(own_syn(), 0.0)
    effects = attempt.step(DeadlinePassed(), TURN_S)
    assert [] == those(Connect, effects)
    assert ["nothing-heard"] == [final.outcome.code for final in those(Finish, effects)]


def test_a_cancel_names_its_reason_and_closes_everything() -> None:
    """The caller, its hang-up and the daemon's end differ in the code only."""
    attempt = initiating("tcp-simopen", "tcp-midstream")
    begun(attempt)
    effects = attempt.step(Cancelled("shutting-down"), 0.1)
    assert {0, 1} == {close.pair for close in those(ClosePair, effects)}
    outcome = those(Finish, effects)[0].outcome
    assert isinstance(outcome, Failed)
    assert "shutting-down" == outcome.code
    assert [] == attempt.step(Connected(0), 0.2)
    assert attempt.deadline is None


def test_each_role_must_have_a_rule() -> None:
    """The base class is no attempt."""
    bare = Attempt(
        terms=Terms(True, bytes(16)), local="", remote="", timeout_s=1.0, now=0.0, state=State.EXCHANGING
    )  # fmt: skip
    with pytest.raises(NotImplementedError):
        bare.step(Settled(), 0.0)


def test_a_udp_responder_repeats_for_an_answer_by_datagram() -> None:
    """The driver can't send it any more; the core need not know."""
    attempt = responding("udp")
    attempt.begin()
    attempt.step(SignalSeen(0, Signal.ANSWER), 0.1)
    assert 1 == len(those(Tell, attempt.step(SignalSeen(0, Signal.ANSWER), 0.2)))


def _lingering() -> Responding:
    attempt = responding("tcp-midstream")
    attempt.begin()
    attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.2)
    attempt.step(KernelHeard(0), 0.2)
    assert State.LINGERING is attempt.state
    return attempt
