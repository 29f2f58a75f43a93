"""Many 4-tuples in the kernel's lab: either side random, either transport, and what a third party gets to see of it.
It refuses to judge the odds (tests/core/test_fan.py does): a few runs each show that kernels agree with the model."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable

import pytest
from duo import Duo, Talker, duo
from running import BENT, QUIET_S
from tap import Tap

from punchd.core.budget import Limits
from punchd.lab.pair import Pair
from punchd.lab.topology import Lab
from punchd.wire.peer import encode_notification
from punchd.words.notification import NONCE_LEN, OFFERS_MAX, Fan, Notification, Offer, Spread

pytestmark = [pytest.mark.lab, pytest.mark.slow]

RUNS = 3
WATCHED_S = 3.0
HOLE_TTL = 2


@pytest.mark.parametrize(
    ("kind_a", "kind_b", "technique"),
    [
        ("random", "linux", "tcp-birthday"),
        ("linux", "random", "tcp-birthday"),
        ("random", "linux-noloose", "tcp-birthday"),
        ("linux-noloose", "random", "tcp-birthday"),
        ("random", "linux", "udp-birthday"),
        ("linux", "random", "udp-birthday"),
    ],
)
def test_one_side_may_be_random(kind_a: str, kind_b: str, technique: str) -> None:
    """Where every other technique fails; with data in both directions, and nothing left of the other lanes."""
    counted = [*BENT, "counted"]
    with duo(kind_a, kind_b, command_a=counted, command_b=counted, delay_ms=10.0) as both:
        before: list[dict[str, int]] = []
        for _ in range(RUNS):
            a, b = asyncio.run(both.run([technique], transport="udp" if technique.startswith("udp") else "tcp"))
            assert (True, True) == (a["ok"], b["ok"]), (a, b)
            if not before:  # what is opened once and kept is open now
                time.sleep(QUIET_S)
                before = [daemon.counts() for daemon in (both.a, both.b)]
        for daemon, counts in zip((both.a, both.b), before, strict=True):
            kept = {key: counts[key] for key in ("flows", "tuples", "tokens", "ports", "runs", "fds")}
            assert {} == daemon.settles(kept)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_punches_at_once_meet_though_both_nats_count(transport: str) -> None:
    """Neighbours take ports at either NAT, and so do the probes of the punches beside; one may fail of a late host."""
    kind, runs = "sequential:foreign=20", 8
    with Lab(kind, kind, echo=None) as lab, Pair(lab) as pair:
        result = pair.run("auto", runs=runs, transport=transport, parallel=4, endpoint="run")
    assert result.ok >= runs - 1, result.messages


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_nat_that_counts_sends_no_stray_to_one_that_blocks(transport: str) -> None:
    """One would cost all attempts of the next half minute, so none but the first four would connect."""
    runs = 8
    with Lab("blacklist", "sequential:foreign=20", echo=None) as lab, Pair(lab) as pair:
        result = pair.run("auto", runs=runs, transport=transport, parallel=4, endpoint="run")
    assert result.ok >= runs - 1, result.messages


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_no_notification_makes_it_send_more_than_the_budget(transport: str) -> None:
    """Whoever can hand us notifications names the address that we fire at: forty-eight fans, and a victim at A."""
    limit = Limits().target
    with duo("linux", "linux") as both, Talker(both.b.path) as talker, Tap(both.lab.b) as tap:
        began = time.monotonic()
        for number in range(3):
            text = _forged(both, transport, range(24000 + OFFERS_MAX * number, 24000 + OFFERS_MAX * (number + 1)))
            talker.say({"id": str(number), "call": "respond", "notification": text, "timeout_ms": 8000})
        sent = 0
        while (elapsed_s := time.monotonic() - began) < WATCHED_S:
            time.sleep(0.05)
            sent += sum(packet.dst == both.lab.public_a and packet.ttl > HOLE_TTL for packet in tap.packets())
            assert sent <= limit.burst + limit.rate * (time.monotonic() - began)
        assert sent > limit.burst + limit.rate * elapsed_s / 2, "it does fire, as far as it may"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(("port", "code"), [(24000, "port-taken"), (40000, "port-refused")])
def test_a_fan_opens_no_port_that_serves_or_is_not_for_punching(transport: str, port: int, code: str) -> None:
    """As with one 4-tuple: a hole in our NAT would open a local service to whoever is at the other end."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with (
        duo("linux", "linux") as both,
        Talker(both.b.path) as talker,
        both.lab.b.socket(socket.AF_INET, kind) as service,
    ):
        service.bind(("0.0.0.0", 24000))
        if transport == "tcp":
            service.listen()
        with Tap(both.lab.b) as tap:
            text = _forged(both, transport, [port])
            answer = talker.ask({"id": "1", "call": "respond", "notification": text, "timeout_ms": 2000})
            assert code == answer["code"]
            assert [] == [packet for packet in tap.packets() if packet.dst == both.lab.public_a]
        service.close()


def _forged(both: Duo, transport: str, ports: Iterable[int]) -> str:
    """A notification by which B fires at A from these ports, from each at a thousand of A's."""
    offers = tuple(Offer(f"{transport}-birthday", 0, port, fan=Fan(Spread(0, 1024), Spread(port))) for port in ports)
    nonce = os.urandom(NONCE_LEN)
    return encode_notification(Notification(nonce, both.lab.public_a, both.lab.public_b, transport, offers))
