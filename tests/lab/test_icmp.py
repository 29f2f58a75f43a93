"""Time-exceeded of open attempts is dropped, and no other: traceroute works on a host that punches.

It refuses to ask the daemon what it did: foreign sockets tell what reached them.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterable, Iterator

import pytest
from duo import Talker, duo, initiate
from foreign import Tracer, dies_of_time_exceeded
from running import BENT, SYN_SENT, Daemon, held_sockets, tables

from punchd.lab.topology import Lab
from punchd.wire.peer import decode_notification
from punchd.words.addresses import PUNCH_PORTS
from punchd.words.notification import Offer

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("queue", "rules")]

OPEN = 200
OUTSIDE = 33434
QUEUED, FLOOD = 4096, 6000
"""What a queue takes before it is full (edge/nfqueue.py), and more than that."""


@pytest.fixture(scope="module", name="lab")
def _lab() -> Iterator[Lab]:
    with Lab("linux", "linux", echo=None) as made:
        yield made


@pytest.fixture(name="offers")
def _offers(lab: Lab) -> Iterator[list[Offer]]:
    """The 4-tuples of many open attempts, each with a socket in SYN_SENT."""
    with Daemon(lab.a) as daemon, Talker(daemon.path) as talker:
        found = []
        for number in range(OPEN):
            talker.say(initiate(lab, "tcp-simopen", id=str(number), timeout_ms=30_000))
            found += decode_notification(talker.hear()["notification"]).offers
        yield found
        time.sleep(0.1)
        alive = [sock for sock in held_sockets(lab.a) if sock["state"] == SYN_SENT]
        assert OPEN == len(alive)  # none of it was at the cost of an attempt


def inside(offers: Iterable[Offer]) -> int:
    """A port of the punch range that no open attempt holds: whoever binds it must get it."""
    held = {offer.initiator_port for offer in offers}
    return next(port for port in range(PUNCH_PORTS.low, PUNCH_PORTS.high) if port not in held)


def test_traceroute_works_while_many_attempts_are_open(lab: Lab, offers: list[Offer]) -> None:
    """Quoting a port of the range or not, each error comes home, and soon."""
    target = lab.public_b
    for port in (OUTSIDE, inside(offers)):
        with Tracer(lab.a, port, (target, 33435)) as tracer:
            rounds_s = [tracer.round_s() for _ in range(30)]
        arrived = [round_s for round_s in rounds_s if round_s is not None]
        assert 30 == len(arrived)
        assert statistics.median(arrived) < 0.01
        assert max(arrived) < 0.2


def test_error_of_an_attempts_ports_but_another_protocol_or_peer_passes(lab: Lab, offers: list[Offer]) -> None:
    """The verdict is on 4-tuple and protocol, not on the port alone."""
    offer = offers[OPEN // 2]
    for target in ((lab.public_b, offer.responder_port), (lab.public_b, 33435), ("192.0.2.77", offer.responder_port)):
        with Tracer(lab.a, offer.initiator_port, target) as tracer:
            assert tracer.round_s() is not None


def test_foreign_connect_dies_of_its_error_as_ever(lab: Lab, offers: list[Offer]) -> None:
    """Programs rely on EHOSTUNREACH; here it also proves that errors do kill where nobody prevents it."""
    for port in (OUTSIDE + 1, inside(offers)):
        assert dies_of_time_exceeded(lab.a, port, (lab.public_b, 33435))


@pytest.mark.parametrize("bend", ["no-belt", "no-braces"])
def test_verdict_and_minimum_ttl_each_keep_an_attempt_alive_alone(bend: str) -> None:
    """IP_MINTTL is what is left without privileges, the verdict what is left where it is not enough."""
    with (
        duo("linux", "linux", command_a=[*BENT, bend]) as both,
        Talker(both.a.path) as near,
        Talker(both.b.path) as far,
    ):
        near.say(initiate(both.lab, "tcp-simopen"))
        text = near.hear()["notification"]
        time.sleep(0.3)
        assert [SYN_SENT] == [sock["state"] for sock in held_sockets(both.lab.a)]
        far.say({"id": "1", "call": "respond", "notification": text})
        assert ["ok", "ok"] == [near.final()["status"], far.final()["status"]]


def test_full_queue_lets_errors_pass(lab: Lab) -> None:
    """A daemon that hangs must not take the host's ICMP with it: what the queue can't hold passes unasked."""
    with Daemon(lab.a) as daemon, Tracer(lab.a, inside(()), (lab.public_b, 33435)) as tracer:
        daemon.child.send_signal(signal.SIGSTOP)
        arrived = _flood(tracer)
        time.sleep(0.1)
        arrived += tracer.errors()
        assert FLOOD - QUEUED <= arrived < FLOOD
        assert tracer.round_s() is not None
        daemon.child.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 5
        while arrived < FLOOD and time.monotonic() < deadline:
            time.sleep(0.05)
            arrived += tracer.errors()
        assert FLOOD == arrived  # those in the queue had only to wait


def test_errors_flow_and_the_table_is_gone_after_kill_9(lab: Lab, offers: list[Offer]) -> None:
    """The kernel cleans up after us: owner flag and bypass."""
    with Daemon(lab.a) as daemon, Tracer(lab.a, inside(offers), (lab.public_b, 33435)) as tracer:
        assert 2 == len(tables(lab.a))
        daemon.child.kill()
        daemon.child.wait()
        assert 1 == len(tables(lab.a))
        assert tracer.round_s() is not None


def _flood(tracer: Tracer) -> int:
    arrived = 0
    for number in range(FLOOD):
        tracer.send()
        if number % 50 == 0:
            arrived += tracer.errors()
    return arrived
