"""Each technique's script, word by word: what leaves in which order, and what each side waits for.
It refuses to model a net; events are fed by hand (tests/core/test_agreement.py lets the scripts meet)."""

from __future__ import annotations

import importlib
import pkgutil
import random
from pathlib import Path

import pytest
from acts import (
    ISN_A,
    ISN_B,
    NONCE,
    SYN_OF_A,
    begun,
    feed,
    initiating,
    own_syn,
    own_syn_ack,
    peer_syn,
    peer_syn_ack,
    responding,
    seen,
    signalled,
    those,
    work,
)

from punchd.core import techniques
from punchd.core.pair import FIRST_REFIRE_S, FIRST_RESYN_S, SYN_HOLE_S, UDP_HOLE_S
from punchd.core.ports import Ports
from punchd.core.techniques import TECHNIQUES, tcp_nutss, tcp_simopen, tcp_syni
from punchd.words.effects import (
    Abort,
    AskKernel,
    Clear,
    Connect,
    Finish,
    HandOver,
    Inject,
    Listen,
    Materialise,
    Notify,
    OpenDatagram,
    OpenFan,
    OpenPair,
    Resend,
    SetTtl,
    Tell,
)
from punchd.words.events import ACK, SYN, Connected, DeadlinePassed, KernelHeard, Signal, SignalSeen
from punchd.words.notification import Syn

HOLE = 2


def test_each_file_is_one_technique_named_as_on_the_wire() -> None:
    """One name per thing: file, wire, metric, page."""
    files = {module.name for module in pkgutil.iter_modules(techniques.__path__)}
    assert {name.replace("-", "_") for name in TECHNIQUES} == files
    for name, technique in TECHNIQUES.items():
        module = importlib.import_module(f"punchd.core.techniques.{name.replace('-', '_')}")
        assert name == technique.name == module.NAME
        assert name.partition("-")[0] == technique.transport
        assert name in (Path(module.__file__ or "").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_every_script_begins_with_its_port_taken(name: str) -> None:
    """Whatever a script does, ClosePair must be able to undo it."""
    opened = OpenFan if "birthday" in name else OpenPair
    assert opened is type(initiating(name).begin()[0])
    assert opened is type(responding(name).begin()[0])


# -- tcp-simopen -------------------------------------------------------------------------------------------------


def test_simopen_keeps_the_ttl_low_until_the_answer_is_re_sent() -> None:
    """A retransmission of the kernel must not reach a punishing NAT."""
    attempt = initiating("tcp-simopen")
    effects = begun(attempt)
    assert [Connect(0, HOLE)] == those(Connect, effects)
    assert [] == those(SetTtl, effects)
    assert 1 == len(those(Notify, effects))
    assert [] == feed(attempt, 0.1, own_syn(), peer_syn())
    assert [SetTtl(0, None), Resend(0, b"segment", None)] == work(attempt.step(own_syn_ack(), 0.1))
    assert [Resend(0, b"segment", None)] == attempt.step(peer_syn(), 0.2)
    assert [Resend(0, b"segment", None)] == attempt.step(DeadlinePassed(), 0.2 + FIRST_REFIRE_S)


@pytest.mark.parametrize("name", ["tcp-simopen", "tcp-direct"])
def test_an_answer_that_has_arrived_is_not_repeated_but_asked_about(name: str) -> None:
    """NAT A drops a SYN-ACK on a connection that stands; an ACK of what COMMIT came with is lost for ever otherwise."""
    attempt = initiating(name, name)
    begun(attempt)
    for pair in (0, 1):
        feed(attempt, 0.1, own_syn(pair), peer_syn(pair), own_syn_ack(pair))
    # the ACK before it was lost; no answer at once, or the two would play ping-pong until the kernels agree
    assert [] == attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.2)
    assert [] == attempt.step(Connected(1), 0.2)
    effects = attempt.step(DeadlinePassed(), 0.4)
    assert [(0, Signal.ANSWER), (1, Signal.ANSWER)] == [(tell.pair, tell.signal) for tell in those(Tell, effects)]
    assert [0] == [over.pair for over in those(HandOver, attempt.step(Connected(0), 0.5))]


def test_simopen_re_fires_its_syn_until_connected_by_the_peers_answer() -> None:
    """Connected alone could be the injected SYN's doing; the SYN-ACK must be the peer's."""
    attempt = responding("tcp-simopen")
    assert [Connect(0, None)] == those(Connect, attempt.begin())
    assert [] == attempt.step(own_syn(seq=ISN_B), 0.0)
    assert [Resend(0, b"segment", None)] == attempt.step(DeadlinePassed(), FIRST_RESYN_S)
    assert [] == attempt.step(Connected(0), 0.2)
    assert 1 == len(those(HandOver, attempt.step(peer_syn_ack(), 0.2)))


def test_simopen_without_the_ring_starts_afresh_before_the_kernel_would() -> None:
    """Its TTL is up at once, so the kernel's retransmission after 1 s would reach the peer's NAT."""
    attempt = initiating("tcp-simopen", blind=True)
    effects = begun(attempt)
    assert [Connect(0, HOLE)] == those(Connect, effects)
    assert [SetTtl(0, None)] == those(SetTtl, effects)
    assert pytest.approx(tcp_simopen._REPRIME_S) == attempt.deadline
    assert tcp_simopen._REPRIME_S < 1.0
    for turn in (1, 2):
        effects = attempt.step(DeadlinePassed(), turn * tcp_simopen._REPRIME_S)
        assert [Abort(0), Connect(0, HOLE), SetTtl(0, None)] == effects
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 2.0)))


def test_a_blind_responder_takes_what_its_kernel_says() -> None:
    """It sees no segments, so it can't tell more."""
    attempt = responding("tcp-simopen", blind=True)
    attempt.begin()
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.1)))


# -- tcp-direct and tcp-nutss ------------------------------------------------------------------------------------


def test_direct_listens_and_is_connected_to() -> None:
    """Without a primer: for a side that is open."""
    attempt = initiating("tcp-direct")
    effects = begun(attempt)
    assert [] == those(Connect, effects)
    assert [Listen(0, HOLE)] == those(Listen, effects)
    assert [Resend(0, b"segment", None)] == work(feed(attempt, 0.1, peer_syn(), own_syn_ack()))
    assert [Resend(0, b"segment", None)] == attempt.step(peer_syn(), 0.2)
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.2)))
    assert [Connect(0, None)] == those(Connect, responding("tcp-direct").begin())


def test_a_blind_listener_waits_for_the_kernel() -> None:
    """The accepted socket is all it hears."""
    attempt = initiating("tcp-direct", blind=True)
    assert [Listen(0, None)] == those(Listen, begun(attempt))
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.2)))


def test_nutss_primes_with_a_socket_that_it_closes() -> None:
    """NUTSS 4.2.2: low-TTL SYN, abort, listen on the same port."""
    effects = begun(initiating("tcp-nutss"))
    assert [Connect, Abort, Listen] == [type(e) for e in effects if isinstance(e, Connect | Abort | Listen)]
    assert [Connect(0, HOLE)] == those(Connect, effects)
    assert [Listen(0, None)] == those(Listen, effects)


def test_nutss_is_not_proven_by_a_syn_ack() -> None:
    """Counterexample: NAT A let the SYN-ACK slip through and nothing after it; both handed over a dead connection."""
    attempt = responding("tcp-nutss")
    attempt.begin()
    feed(attempt, tcp_nutss._APART_S, DeadlinePassed(), own_syn(seq=ISN_B))
    effects = feed(attempt, 0.1, peer_syn_ack(seq=ISN_A, ack=ISN_B + 1), Connected(0))
    assert [Signal.FIRE] == [tell.signal for tell in those(Tell, effects)]
    assert [] == those(HandOver, effects)
    assert 1 == len(those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.2)))


def test_nutss_answers_the_fire_that_follows_the_handshake() -> None:
    """Until then its SYN-ACK is repeated, for that may be what was lost."""
    attempt = initiating("tcp-nutss")
    begun(attempt)
    assert [] == work(feed(attempt, 0.1, own_syn(), peer_syn(), own_syn_ack()))
    assert [Resend(0, b"segment", None)] == work(attempt.step(peer_syn(), 0.2))
    assert [] == those(HandOver, attempt.step(Connected(0), 0.3))
    effects = attempt.step(signalled(attempt.pairs[0], Signal.FIRE), 0.3)
    assert [Signal.ANSWER] == [tell.signal for tell in those(Tell, effects)]
    assert 1 == len(those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.4)))


def test_nutss_keeps_its_sequence_numbers_apart() -> None:
    """Counterexample: 2 ms after the primer Linux's NAT let the listener's answer out and nothing after it."""
    attempt = responding("tcp-nutss")
    assert [] == those(Connect, attempt.begin())
    assert tcp_nutss._APART_S == attempt.deadline
    assert 2 * 65535 * 64e-9 < tcp_nutss._APART_S
    assert [Connect(0, None)] == attempt.step(DeadlinePassed(), tcp_nutss._APART_S)


# -- tcp-syni ----------------------------------------------------------------------------------------------------


def test_syni_notifies_what_the_ring_saw() -> None:
    """The number must be the wire's, not the socket's idea of it."""
    attempt = initiating("tcp-syni")
    assert [] == those(Notify, begun(attempt))
    notify = those(Notify, attempt.step(own_syn(seq=77), 0.0))[0]
    assert Syn(77, 64240, 1460, 7, True, None) == notify.notification.offers[0].syn


def test_syni_without_a_captured_syn_is_over() -> None:
    """Guessing the number would inject garbage into the peer's stack."""
    attempt = initiating("tcp-syni")
    begun(attempt)
    assert tcp_syni._CAPTURE_S == attempt.deadline
    attempt.step(DeadlinePassed(), tcp_syni._CAPTURE_S)
    assert "syn-not-captured" == attempt.pairs[0].fail_code
    assert attempt.done


def test_syni_re_sends_the_acknowledgement_at_full_range() -> None:
    """The stack's own ACK still had the hole's TTL."""
    attempt = initiating("tcp-syni")
    begun(attempt)
    feed(attempt, 0.1, own_syn(), peer_syn_ack())
    effects = attempt.step(seen(0, ACK, outgoing=True, seq=ISN_A + 1), 0.1)
    assert [SetTtl(0, None), Resend(0, b"segment", None)] == work(effects)
    assert attempt.pairs[0].connected
    for event, at in ((peer_syn_ack(), 0.2), (DeadlinePassed(), 0.2 + FIRST_REFIRE_S)):
        effects = attempt.step(event, at)
        assert Resend(0, b"segment", None) == effects[0]
        assert [Signal.ANSWER] == [tell.signal for tell in those(Tell, effects)]
    assert 1 == len(those(HandOver, attempt.step(signalled(attempt.pairs[0], Signal.COMMIT), 0.4)))


def test_syni_is_not_fooled_by_its_stacks_challenge() -> None:
    """Counterexample: the peer's SYN came through, the stack challenged a signal, a socket in SYN_RECV was given."""
    attempt = initiating("tcp-syni")
    begun(attempt)
    feed(attempt, 0.1, own_syn(), peer_syn(), own_syn_ack())
    assert [] == attempt.step(seen(0, ACK, outgoing=True, seq=ISN_A + 1), 0.1)
    assert not attempt.pairs[0].connected
    assert not attempt.pairs[0].answered


def test_syni_injects_a_copy_of_the_peers_syn() -> None:
    """Own low-TTL SYN first, so that the own NAT is open; then the forged one."""
    attempt = responding("tcp-syni")
    effects = [e for e in attempt.begin() if isinstance(e, Connect | SetTtl | Inject)]
    assert [Connect(0, HOLE), SetTtl(0, None), Inject(0, SYN_OF_A)] == effects
    assert [Inject(0, SYN_OF_A)] == attempt.step(DeadlinePassed(), FIRST_REFIRE_S)
    feed(attempt, 0.2, own_syn(seq=ISN_B), own_syn_ack(seq=ISN_B, ack=SYN_OF_A.seq + 1))
    assert [Resend(0, b"segment", None)] == attempt.step(DeadlinePassed(), 0.2 + FIRST_REFIRE_S)
    assert 1 == len(those(HandOver, attempt.step(Connected(0), 0.5)))


def test_syni_takes_a_connection_that_came_before_its_answer_was_seen() -> None:
    """The socket may be read before the ring."""
    attempt = responding("tcp-syni")
    attempt.begin()
    attempt.step(Connected(0), 0.1)
    assert 1 == len(those(HandOver, attempt.step(own_syn_ack(seq=ISN_B), 0.1)))


# -- tcp-midstream -----------------------------------------------------------------------------------------------


def test_midstream_holds_no_socket_until_the_peer_fires() -> None:
    """A waiting attempt costs no descriptor."""
    attempt = initiating("tcp-midstream")
    effects = begun(attempt)
    assert [Signal.PRIME] == [tell.signal for tell in those(Tell, effects)]
    assert HOLE == those(Tell, effects)[0].ttl
    assert [] == those(Materialise, effects)
    pair = attempt.pairs[0]
    effects = attempt.step(signalled(pair, Signal.FIRE), 0.1)
    assert [Materialise, Tell] == [type(e) for e in work(effects)]
    assert Signal.ANSWER is those(Tell, effects)[0].signal
    assert those(Tell, effects)[0].ttl is None
    assert [Signal.ANSWER] == [e.signal for e in those(Tell, attempt.step(signalled(pair, Signal.FIRE), 0.2))]
    assert [AskKernel(0)] == attempt.step(signalled(pair, Signal.COMMIT), 0.3)
    assert 1 == len(those(HandOver, attempt.step(KernelHeard(0), 0.3)))


def test_midstream_makes_its_socket_before_it_fires() -> None:
    """An ANSWER that met no socket would be answered with a RST."""
    attempt = responding("tcp-midstream")
    effects = attempt.begin()
    assert [OpenPair, Materialise, Tell] == [type(e) for e in effects][:3]
    again = attempt.step(DeadlinePassed(), FIRST_REFIRE_S)
    assert [Signal.FIRE] in ([t.signal for t in those(Tell, again)], [Signal.FIRE])
    assert [AskKernel(0)] == attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.2)
    effects = attempt.step(KernelHeard(0), 0.2)
    assert [Signal.COMMIT] == [tell.signal for tell in those(Tell, effects)]
    assert 1 == len(those(HandOver, effects))


def test_midstream_is_not_content_with_what_the_ring_hears() -> None:
    """A rule of this host's may drop what the ring has seen: the socket would be deaf, and both sides say ok."""
    attempt = responding("tcp-midstream", timeout_s=1.0)
    attempt.begin()
    attempt.step(signalled(attempt.pairs[0], Signal.ANSWER), 0.2)
    effects = attempt.step(DeadlinePassed(), 1.0)
    assert [] == those(HandOver, effects)
    assert "blocked-incoming" == those(Finish, effects)[0].outcome.code


def test_midstream_peers_agree_on_their_numbers() -> None:
    """Both derive them from the nonce and the ports."""
    a, b = initiating("tcp-midstream"), responding("tcp-midstream")
    begun(a)
    notification = those(Notify, begun(initiating("tcp-midstream")))[0].notification
    offer = notification.offers[0]
    assert NONCE == notification.nonce
    b = type(b)(
        terms=b.terms, local=b.local, notification=notification, runnable=frozenset({offer.technique}),
        ports=Ports(random.Random(1)), timeout_s=1.0, now=0.0,
    )  # fmt: skip
    b.begin()
    assert (a.pairs[0].snd_nxt, a.pairs[0].rcv_nxt) == (b.pairs[0].rcv_nxt, b.pairs[0].snd_nxt)


@pytest.mark.parametrize("name", ["tcp-simopen", "tcp-syni", "tcp-nutss"])
def test_a_tracked_syn_is_cleared_and_sent_again_before_it_ages(name: str) -> None:
    """Linux forgets an unanswered SYN after 120 s, and repeating it does not help (nf_conntrack_proto_tcp.c)."""
    attempt = initiating(name, timeout_s=600.0)
    begun(attempt)
    attempt.step(own_syn(), 0.0)
    effects = attempt.step(DeadlinePassed(), SYN_HOLE_S)
    assert [Clear(0, HOLE, ISN_A + 1), Resend(0, b"segment", HOLE)] == effects


# -- udp ---------------------------------------------------------------------------------------------------------


def test_udp_primes_again_before_the_mapping_is_forgotten() -> None:
    """A mapping that saw one packet may live for 30 s only."""
    attempt = initiating("udp", timeout_s=60.0)
    effects = begun(attempt)
    assert 1 == len(those(OpenDatagram, effects))
    assert [(Signal.PRIME, HOLE)] == [(tell.signal, tell.ttl) for tell in those(Tell, effects)]
    for turn in (1, 2):
        effects = attempt.step(DeadlinePassed(), turn * UDP_HOLE_S)
        assert [(Signal.PRIME, HOLE)] == [(tell.signal, tell.ttl) for tell in those(Tell, effects)]
    assert [Signal.ANSWER] == [t.signal for t in those(Tell, attempt.step(SignalSeen(0, Signal.FIRE), 25.0))]
    assert [Signal.ANSWER] == [t.signal for t in those(Tell, attempt.step(SignalSeen(0, Signal.FIRE), 25.1))]
    assert 1 == len(those(HandOver, attempt.step(SignalSeen(0, Signal.COMMIT), 25.2)))


def test_udp_commits_thrice() -> None:
    """A handed-over socket can't be used to repeat."""
    attempt = responding("udp")
    assert [Signal.FIRE] == [tell.signal for tell in those(Tell, attempt.begin())]
    assert [Signal.FIRE] == [t.signal for t in those(Tell, attempt.step(DeadlinePassed(), FIRST_REFIRE_S))]
    effects = attempt.step(SignalSeen(0, Signal.ANSWER), 0.2)
    assert [Signal.COMMIT] * 3 == [tell.signal for tell in those(Tell, effects)]
    assert 1 == len(those(HandOver, effects))
    assert effects.index(those(HandOver, effects)[0]) == len(effects) - 1


def test_peers_share_the_udp_tag() -> None:
    """Eight bytes that nobody else can know."""
    tags = [those(OpenDatagram, attempt.begin())[0].tag for attempt in (initiating("udp"), responding("udp"))]
    assert tags[0] == tags[1]


def test_a_syn_alone_does_not_finish_a_listener() -> None:
    """Its own SYN-ACK must have left: that is the answer."""
    attempt = initiating("tcp-nutss")
    begun(attempt)
    attempt.step(seen(0, SYN, seq=ISN_B), 0.1)
    assert not attempt.pairs[0].answered
