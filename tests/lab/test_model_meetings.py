"""Fans of auto's plan in the model, where neighbours take the ports at which the first of them was to meet.
It refuses to say how often that happens; the kernel lab does."""

from __future__ import annotations

from math import inf

import pytest

from punchd.core.responding import MEET_AGAIN_S
from punchd.lab.model import PUBLIC, START_S, World
from punchd.lab.model_net import Datagram
from punchd.lab.neighbours import NOWHERE
from punchd.words.effects import Effect
from punchd.words.events import Event, Located
from punchd.words.notification import Notification

BUSY = "sequential:foreign=20"


def world(kind_a: str, kind_b: str, **more: object) -> World:
    return World(kind_a, kind_b, transport="udp", classes="measured", fans=True, **more)


@pytest.mark.parametrize("kind_a", ["linux-reject", "blacklist"])
def test_a_named_port_that_a_neighbour_takes_costs_a_second_meeting(kind_a: str) -> None:
    """A burst of a hundred mappings lasts as long as it takes for that: of two hundred runs one missed, for good."""
    remote: list[tuple[str, int]] = []

    def on_notification(notification: Notification) -> None:
        fan = notification.offers[0].fan
        assert fan is not None
        remote.append((PUBLIC[0], fan.targets.first))

    def on_event(event: Event | None, now: float, effects: list[Effect]) -> None:
        if isinstance(event, Located) and event.pair == 0:
            (nat,) = punch.net.boxes(1)
            nat._occupied[False, event.port, remote[0]] = inf

    punch = world(kind_a, BUSY, on_notification=on_notification)
    punch.b.watcher = on_event
    result = punch.run()
    assert result.ok
    assert result.b.at > MEET_AGAIN_S


@pytest.mark.parametrize("many", [10, 30, 80])
def test_neighbours_that_take_more_ports_than_ever_cost_a_second_fan(many: int) -> None:
    """No hole is where the responder fires, as often as it does; but its own holes wait where our NAT counts to."""
    punch = world(BUSY, "linux")
    (nat,) = punch.net.boxes(0)
    for number in range(many):
        nat.outbound(Datagram(5000 + number, 9, b"", 64), START_S, NOWHERE)
    assert punch.run().ok


@pytest.mark.slow
def test_no_segment_of_the_handshake_is_lost_for_good() -> None:
    """With a FIRE behind the SYN-ACK, six of these runs were lost: B's NAT let no second SYN-ACK pass."""
    runs = [
        World("linux-noloose", BUSY, classes="measured", fans=True, seed=seed, loss=0.05).run() for seed in range(60)
    ]
    assert all(run.ok for run in runs)
