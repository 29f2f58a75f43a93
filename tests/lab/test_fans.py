"""Many 4-tuples in the kernel's lab: either side random, either transport, and what a third party gets to see of it.
It refuses to judge the odds (tests/core/test_fan.py does): a few runs each show that kernels agree with the model."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from duo import Talker, duo
from running import BENT
from tap import Tap

from punchd.core.budget import Limits
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
        before = [daemon.counts() for daemon in (both.a, both.b)]
        for _ in range(RUNS):
            a, b = asyncio.run(both.run([technique], transport="udp" if technique.startswith("udp") else "tcp"))
            assert (True, True) == (a["ok"], b["ok"]), (a, b)
        for daemon, counts in zip((both.a, both.b), before, strict=True):
            kept = {key: counts[key] for key in ("flows", "tuples", "tokens", "ports", "runs", "fds")}
            assert {} == daemon.settles(kept)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_no_notification_makes_it_send_more_than_the_budget(transport: str) -> None:
    """Whoever can hand us notifications names the address that we fire at: forty-eight fans, and a victim at A."""
    limit = Limits().target
    with duo("linux", "linux") as both, Talker(both.b.path) as talker, Tap(both.lab.b) as tap:
        began = time.monotonic()
        for number in range(3):
            offers = tuple(
                Offer(
                    f"{transport}-birthday",
                    0,
                    24000 + 16 * number + place,
                    fan=Fan(Spread(0, 1024), Spread(24000 + 16 * number + place)),
                )
                for place in range(OFFERS_MAX)
            )
            forged = Notification(os.urandom(NONCE_LEN), both.lab.public_a, both.lab.public_b, transport, offers)
            text = encode_notification(forged)
            talker.say({"id": str(number), "call": "respond", "notification": text, "timeout_ms": 8000})
        sent = 0
        while (elapsed_s := time.monotonic() - began) < WATCHED_S:
            time.sleep(0.05)
            sent += sum(packet.dst == both.lab.public_a and packet.ttl > HOLE_TTL for packet in tap.packets())
            assert sent <= limit.burst + limit.rate * (time.monotonic() - began)
        assert sent > limit.burst + limit.rate * elapsed_s / 2, "it does fire, as far as it may"
