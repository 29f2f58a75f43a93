"""Who may fire first: each way of opening passes the NATs that it is there for, and its packets leave as planned.
It refuses to choose between them; core/plan.py does (tests/core/test_plan.py)."""

from __future__ import annotations

import random

import pytest
from acts import (
    ISN_A,
    LOCAL,
    NONCE,
    A,
    B,
    begun,
    feed,
    own_syn,
    own_syn_ack,
    peer_syn,
    peer_syn_ack,
    seen,
    signalled,
    those,
)

from punchd.core.initiating import Initiating
from punchd.core.pair import INSIST_S
from punchd.core.ports import Ports
from punchd.core.responding import CROSS_S, LATE_S, Responding
from punchd.core.terms import Terms
from punchd.lab.model import World
from punchd.words.effects import CallBack, Connect, Effect, HandOver, Listen, Notify, OpenPair, Resend, Tell
from punchd.words.events import (
    ACK,
    RST,
    CallHeard,
    Connected,
    DeadlinePassed,
    EffectFailed,
    Settled,
    Signal,
    SignalSeen,
)
from punchd.words.notification import Notification, Offer, Opening, Ready, SecondMessage
from punchd.words.plan import Row

HOLE = 2
PRIMED, CROSSED, REFIRED, CALLED = Opening


def initiating(*rows: Row) -> Initiating:
    return Initiating(
        terms=Terms(True, NONCE), local=LOCAL, public=A, remote=B, rows=rows, ports=Ports(random.Random(1)),
        timeout_s=10.0, now=0.0,
    )  # fmt: skip


def responding(*offers: Offer, blind: bool = False, in_turn: bool = False) -> Responding:
    transport = offers[0].technique.partition("-")[0]
    return Responding(
        terms=Terms(False, NONCE, blind=blind), local="10.0.2.2",
        notification=Notification(NONCE, A, B, transport, offers, in_turn),
        runnable=frozenset(offer.technique for offer in offers), ports=Ports(random.Random(2)), timeout_s=10.0, now=0.0,
    )  # fmt: skip


def offered(technique: str, opening: Opening) -> Offer:
    return Offer(technique, 22001, 23001, opening=opening)


def told(effects: list[Effect]) -> list[tuple[Signal, int | None]]:
    return [(tell.signal, tell.ttl) for tell in those(Tell, effects)]


# -- what each is there for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind_a", "kind_b", "technique", "passing"),
    [
        ("icmp-kills", "linux", "tcp-midstream", {CROSSED, REFIRED, CALLED}),
        ("icmp-kills", "linux-reject", "tcp-midstream", {CROSSED, REFIRED, CALLED}),
        ("icmp-kills", "blacklist", "tcp-midstream", {CALLED}),
        ("icmp-kills", "blacklist", "udp", {CALLED}),
        ("icmp-kills", "icmp-kills", "tcp-midstream", {CROSSED}),
        ("linux", "icmp-kills", "tcp-midstream", {PRIMED, CROSSED}),
        ("linux-synfilter", "linux-noloose", "tcp-simopen", {REFIRED, CALLED}),
        ("linux", "open", "tcp-direct", {REFIRED, CALLED}),
        ("open", "linux", "tcp-direct", {PRIMED}),
    ],
)
def test_each_way_passes_what_it_is_for(kind_a: str, kind_b: str, technique: str, passing: set[Opening]) -> None:
    """The table behind the plan: NATs that die of a time exceeded, that punish strays, that want a SYN first."""
    transport = "udp" if technique == "udp" else "tcp"
    ways = [way for way in Opening if way is not CROSSED or technique in ("tcp-midstream", "udp")]
    passed = {
        way
        for way in ways
        if World(kind_a, kind_b, rows=[Row(technique, way)], transport=transport, timeout_s=5.0).run().ok
    }
    assert passing == passed


@pytest.mark.parametrize("technique", ["tcp-direct", "tcp-simopen", "tcp-midstream", "udp"])
def test_a_refired_way_costs_little_more_than_the_path(technique: str) -> None:
    """design, section 6: s + r and s + 3r/2, and 20 ms more where the initiator must re-fire."""
    kind_b = "open" if technique == "tcp-direct" else "linux"
    transport = "udp" if technique == "udp" else "tcp"
    run = World("linux", kind_b, rows=[Row(technique, REFIRED)], transport=transport).run()
    assert run.ok
    assert 0.150 <= run.b.at <= 0.150 + INSIST_S + 1e-9
    assert run.a.at <= 0.200 + INSIST_S + 1e-9


# -- the initiator fires -----------------------------------------------------------------------------------------


def test_a_crossed_fire_is_repeated_as_soon_as_the_initiator_is_heard() -> None:
    """The first one may have come before there was a hole, where the initiator bides its time."""
    attempt = responding(offered("udp", CROSSED))
    assert (Signal.FIRE, None) in told(begun(attempt))
    assert [(Signal.FIRE, None)] == told(attempt.step(SignalSeen(0, Signal.PRIME, 23001, 22001), 0.01))
    assert [] == told(attempt.step(SignalSeen(0, Signal.PRIME, 23001, 22001), 0.03))


def test_a_crossed_prime_goes_all_the_way_until_the_peer_is_heard() -> None:
    """Every 20 ms at first, later as a share of the time waited."""
    attempt = initiating(Row("tcp-midstream", CROSSED))
    effects = begun(attempt)
    assert [(Signal.PRIME, None)] == told(effects)
    assert CROSSED is those(Notify, effects)[0].notification.offers[0].opening
    assert INSIST_S == attempt.deadline
    assert [(Signal.PRIME, None)] == told(attempt.step(DeadlinePassed(), INSIST_S))
    now = 5.0
    attempt.step(DeadlinePassed(), now)
    assert attempt.deadline == pytest.approx(now + 0.1)
    assert [(Signal.ANSWER, None)] == told(attempt.step(signalled(attempt.pairs[0], Signal.FIRE), now))


def test_a_called_initiator_sends_nothing_before_it_is_called() -> None:
    """The peer's NAT blocks whoever comes too early."""
    attempt = initiating(Row("udp", CALLED))
    assert [] == told(begun(attempt))
    ready = CallHeard(SecondMessage(NONCE, (Ready(0),)))
    assert [(Signal.PRIME, None)] == told(attempt.step(ready, 0.2))
    assert [(Signal.ANSWER, None)] == told(attempt.step(SignalSeen(0, Signal.FIRE), 0.3))


def test_a_fire_needs_no_call() -> None:
    """It came in: the own NAT let it."""
    attempt = initiating(Row("udp", CALLED))
    begun(attempt)
    assert [(Signal.ANSWER, None)] == told(attempt.step(SignalSeen(0, Signal.FIRE), 0.3))


def test_a_reaching_initiator_insists_and_answers_by_its_own_hand() -> None:
    """A refusal is no end: the peer was not ready. And the kernel's own ACK is no answer."""
    attempt = initiating(Row("tcp-direct", REFIRED))
    assert [Connect(0, None, stubborn=True)] == those(Connect, begun(attempt))
    feed(attempt, 0.0, own_syn())
    assert [Resend(0, b"segment")] == attempt.step(DeadlinePassed(), INSIST_S)
    assert [] == feed(attempt, 0.03, seen(0, RST | ACK, ack=ISN_A + 1))
    assert [Resend(0, b"segment")] == attempt.step(DeadlinePassed(), 2 * INSIST_S)
    assert [] == told(feed(attempt, 0.05, peer_syn_ack()))
    effects = attempt.step(Connected(0), 0.05)
    assert [(Signal.ANSWER, None)] == told(effects)
    assert [] == those(HandOver, effects)
    commit = signalled(attempt.pairs[0], Signal.COMMIT)
    assert 1 == len(those(HandOver, attempt.step(commit, 0.1)))


# -- the responder waits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", ["tcp-midstream", "udp"])
def test_a_waiting_responder_opens_its_nat_and_fires_when_it_hears(technique: str) -> None:
    """Its first packet dies, since the initiator's NAT knows nothing of it yet."""
    attempt = responding(offered(technique, REFIRED))
    assert [(Signal.FIRE, HOLE)] == told(attempt.begin())
    prime = SignalSeen(0, Signal.PRIME) if technique == "udp" else signalled(attempt.pairs[0], Signal.PRIME)
    assert [(Signal.FIRE, None)] == told(attempt.step(prime, 0.1))


def test_a_listener_proves_itself_by_the_answer_alone() -> None:
    """The initiator's kernel acknowledges by itself; only ANSWER says that its punchd will take this pair."""
    attempt = responding(offered("tcp-direct", REFIRED))
    assert [Listen(0, None)] == those(Listen, attempt.begin())
    assert [] == attempt.step(own_syn_ack(seq=5000, ack=1001), 0.1)
    assert [] == those(HandOver, attempt.step(Connected(0), 0.2))
    assert 1 == len(those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.2)))


def test_a_lost_handshake_ack_is_fetched_by_a_signal_once_the_answer_has_passed_the_own_nat() -> None:
    """To that NAT the connection is ESTABLISHED then, and our SYN-ACK INVALID for ever; a FIRE passes."""
    attempt = responding(offered("tcp-simopen", REFIRED))
    attempt.begin()
    feed(attempt, 0.1, own_syn(), peer_syn(), own_syn_ack())
    assert attempt.deadline is not None
    assert [Resend(0, b"segment")] == attempt.step(DeadlinePassed(), attempt.deadline)
    attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.3)
    effects = attempt.step(DeadlinePassed(), attempt.deadline)
    assert ([(Signal.FIRE, None)], []) == (told(effects), those(Resend, effects))
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.8)))


def test_no_loss_ends_a_refired_simopen() -> None:
    """Four of these seeds lost the kernel's ACK twice, and with it the attempt."""
    for way in (REFIRED, CALLED):
        for seed in (12, 56, 62, 76):
            world = World("linux-synfilter", "linux-noloose", rows=[Row("tcp-simopen", way)], seed=seed, loss=0.1,
                          delay_ms=100.0, side_delay_ms=100.0)  # fmt: skip
            assert world.run().ok, (way, seed)


def test_a_responder_that_waits_for_a_call_says_that_it_is_ready() -> None:
    """One second message, which names the offer by its place in the notification."""
    attempt = responding(offered("tcp-simopen", PRIMED), offered("tcp-midstream", CALLED), in_turn=True)
    effects = attempt.begin()
    assert [CallBack(SecondMessage(NONCE, (Ready(1),)))] == those(CallBack, effects)


def test_a_way_that_waits_takes_no_turn_of_its_own() -> None:
    """The initiator is the slow one there; the responder's next technique need not wait as well."""
    attempt = responding(
        offered("tcp-direct", PRIMED), offered("tcp-direct", REFIRED), offered("tcp-simopen", PRIMED), in_turn=True
    )
    assert [0, 1] == [opened.pair for opened in those(OpenPair, attempt.begin())]


def test_what_waits_in_auto_comes_after_all_else_had_its_chance_and_calls() -> None:
    """A call that is not needed costs a message of the side channel; one that is needed names all that wait."""
    attempt = responding(
        offered("tcp-simopen", PRIMED), offered("tcp-simopen", REFIRED), offered("tcp-midstream", REFIRED)
    )
    assert [] == those(CallBack, attempt.begin())
    assert [] == attempt.step(DeadlinePassed(), LATE_S - 0.01)
    effects = attempt.step(DeadlinePassed(), LATE_S)
    assert [CallBack(SecondMessage(NONCE, (Ready(1), Ready(2))))] == those(CallBack, effects)


def test_a_responder_fires_last_where_the_initiator_may_have_no_hole() -> None:
    """It is a stray there, and what was primed may just be about to succeed."""
    attempt = responding(offered("udp", PRIMED), offered("udp", REFIRED), offered("udp", CROSSED))
    attempt.begin()
    assert [(Signal.FIRE, HOLE)] == told(attempt.step(DeadlinePassed(), LATE_S))[-1:]
    late = attempt.step(DeadlinePassed(), LATE_S + CROSS_S)
    assert (Signal.FIRE, None) in told(late)
    assert [CallBack(SecondMessage(NONCE, (Ready(2),)))] == those(CallBack, late)


@pytest.mark.parametrize("technique", ["tcp-simopen", "tcp-midstream", "udp"])
def test_who_bides_his_time_fires_when_called_or_when_it_is_over(technique: str) -> None:
    """Unasked, a full-range packet may be what a NAT punishes; a second message may never come."""
    for called in (True, False):
        attempt = initiating(Row(technique, REFIRED, after_s=5.0))
        assert 1 == len(those(Notify, [*attempt.begin(), *attempt.step(Settled(), 0.0)]))
        assert [] == [*those(Connect, attempt.step(DeadlinePassed(), 4.9)), *told(attempt.step(DeadlinePassed(), 4.9))]
        if called:
            effects = attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0),))), 4.9)
        else:
            effects = attempt.step(DeadlinePassed(), 5.0)
        assert 1 == len([*those(Connect, effects), *told(effects)])


def test_a_blind_responder_leaves_out_what_needs_eyes() -> None:
    """It sees no ANSWER."""
    attempt = responding(offered("tcp-direct", REFIRED), offered("tcp-simopen", PRIMED), blind=True)
    assert ["tcp-simopen"] == [opened.technique for opened in those(OpenPair, attempt.begin())]


# -- ports that are taken ----------------------------------------------------------------------------------------


def taken(pair: int = 0) -> EffectFailed:
    return EffectFailed(pair, "OpenPair", "port-taken", "in use")


def test_a_responder_whose_port_is_taken_fires_from_another_and_says_so() -> None:
    """A local program on one of ten thousand ports is no reason to fail."""
    attempt = responding(offered("tcp-simopen", PRIMED))
    attempt.begin()
    effects = attempt.step(taken(), 0.0)
    port = those(OpenPair, effects)[0].local_port
    assert 23001 != port
    assert [CallBack(SecondMessage(NONCE, (Ready(0, port),)))] == those(CallBack, effects)


def test_a_second_taken_port_is_the_end_of_the_technique() -> None:
    """And the verdict names the cause, though nothing was heard either."""
    attempt = responding(offered("tcp-simopen", PRIMED))
    attempt.begin()
    attempt.step(taken(), 0.0)
    effects = attempt.step(taken(), 0.0)
    assert attempt.done
    assert "port-taken" == effects[-1].outcome.code


def test_the_initiator_opens_towards_the_new_port() -> None:
    """From the same port of its own: that one the responder knows."""
    attempt = initiating(Row("tcp-midstream"))
    begun(attempt)
    own = attempt.pairs[0].own_port
    effects = attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0, 30000),))), 0.1)
    opened = those(OpenPair, effects)[0]
    assert (own, 30000) == (opened.local_port, opened.remote_port)
    assert [(Signal.PRIME, HOLE)] == told(effects)


def test_no_pair_is_moved_twice() -> None:
    """An honest responder draws one other port; one that lies would have us scan whom it has named."""
    attempt = initiating(Row("tcp-midstream"))
    begun(attempt)
    moves = [attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0, port),))), 0.1) for port in range(30000, 30009)]
    assert [1, *([0] * 8)] == [len(those(OpenPair, effects)) for effects in moves]


def test_a_second_message_about_nothing_changes_nothing() -> None:
    """Offers that were never made, pairs that are answered already."""
    attempt = initiating(Row("tcp-simopen"))
    begun(attempt)
    assert [] == attempt.step(CallHeard(SecondMessage(NONCE, (Ready(9, 30000),))), 0.1)
    feed(attempt, 0.1, own_syn(), peer_syn(), own_syn_ack())
    assert [] == attempt.step(CallHeard(SecondMessage(NONCE, (Ready(0, 30000),))), 0.2)


def test_a_moved_pair_connects_through_real_nats() -> None:
    """The whole of it in the model: B's host refuses the first port."""
    for technique in ("tcp-simopen", "tcp-midstream", "tcp-nutss", "udp"):
        kind = "untracked" if technique == "tcp-nutss" else "linux"
        transport = "udp" if technique == "udp" else "tcp"
        world = World(kind, kind, techniques=[technique], transport=transport, faults_b={0: "port-taken"})
        assert world.run().ok, technique
