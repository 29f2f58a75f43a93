"""auto in the model, between every pair of kinds: what the probes know is enough, with loss and without.
It refuses the pairs of NATs that draw their ports, which are met by chance (tests of the fans)."""

from __future__ import annotations

from typing import Any

import pytest

from punchd.core.attempt import Attempt
from punchd.core.responding import Responding
from punchd.lab import pages
from punchd.lab.model import START_S, Result, World
from punchd.lab.model_peer import Daemon
from punchd.words.notification import Opening, Spread
from punchd.words.plan import Lanes, Row

DRAWS = {"random"}
COUNTS = {"sequential"}
KINDS = [kind for kind in pages.KINDS if kind not in DRAWS]
NETS: dict[str, dict[str, Any]] = {
    "near": {"delay_ms": 1.0, "side_delay_ms": 1.0},
    "at-once": {"delay_ms": 0.0, "side_delay_ms": 0.0},
    "far": {"delay_ms": 100.0, "side_delay_ms": 100.0, "loss": 0.02, "jitter_ms": 5.0},
    "conntrack": {"hosts_conntrack": True},
}


def punch(kind_a: str, kind_b: str, transport: str, **more: Any) -> Result:
    layers = max(len(pages.boxes(kind)) for kind in (kind_a, kind_b))
    return World(kind_a, kind_b, transport=transport, hole_ttl=1 + layers, **more).run()


def lost(transport: str, **more: Any) -> list[str]:
    """The pairs that fail. What the applications then say over UDP may be lost; the proof was not."""
    runs = [(f"{a} x {b}", punch(a, b, transport, **more)) for a in KINDS for b in KINDS]
    return [pair for pair, run in runs if not (run.a.ok and run.b.ok and (run.exchanged or transport == "udp"))]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("classes", ["measured", "nicknames"])
@pytest.mark.parametrize("net", NETS)
def test_every_pair_passes(net: str, classes: str, transport: str) -> None:
    """The matrix, but for chance."""
    assert [] == lost(transport, classes=classes, **NETS[net])


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_known_pair_passes_over_a_slow_side_channel(transport: str) -> None:
    """Not so where nobody knows of icmp-kills: the kernel repeats A's SYN each second, so its mapping lives for the
    round trip to where that dies. If B's SYN comes just then, B has a connection that A's NAT has forgotten."""
    assert [] == lost(transport, classes="nicknames", side_delay_ms=2000.0)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_without_a_class_every_pair_that_keeps_ports_passes(transport: str) -> None:
    """Applications that name addresses alone get as far."""
    pairs = [(a, b) for a in KINDS for b in KINDS if not {a, b} & COUNTS]
    assert [] == [f"{a} x {b}" for a, b in pairs if not punch(a, b, transport).ok]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_without_a_second_message_only_a_blocking_nat_is_lost(transport: str) -> None:
    """No order of packets passes icmp-kills x blacklist unless B says when (`./dev lab search`)."""
    assert ["icmp-kills x blacklist"] == lost(transport, classes="nicknames", calls_back=False)


@pytest.mark.parametrize("step", [1, 2, 256, -1, -2])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_quiet_nat_that_counts_is_met_by_one_guess(step: int, transport: str) -> None:
    """With no fan at all: an ordinary technique, aimed at the next port."""
    kind = f"sequential:step={step}"
    for a, b in ((kind, "linux"), ("linux", kind), (kind, kind)):
        assert punch(a, b, transport, classes="measured").ok


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_retry_passes_what_the_first_try_does(transport: str) -> None:
    """Another order, the same rows."""
    for tried in (1, 2, 3):
        assert punch("linux-synfilter", "blacklist", transport, tried=tried).ok


def test_a_known_side_delay_saves_the_wait_for_a_call() -> None:
    """icmp-kills x linux-reject without a second message: A fires when B must be ready, not at half of its patience."""
    told, untold = (
        punch("icmp-kills", "linux-reject", "tcp", calls_back=False, timed=timed) for timed in (True, False)
    )
    assert told.ok
    assert untold.ok
    assert told.a.at < 2.0 < untold.a.at


def test_a_known_class_saves_the_ways_round() -> None:
    """icmp-kills x linux: A fires first, at once, since nothing is harmed."""
    known, unknown = (punch("icmp-kills", "linux", "tcp", classes=classes) for classes in ("nicknames", ""))
    assert known.a.at < 0.3 < unknown.a.at


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("known", [True, False])
def test_a_blocking_nat_and_one_that_counts_meet_at_the_port_that_is_named(transport: str, known: bool) -> None:
    """Blindly the initiator is far off; and no stray of the responder's has it blocked meanwhile."""
    lanes = Lanes(Spread(0), Spread(0), Spread(0, 20), Spread(60000))
    row = Row(f"{transport}-birthday", Opening.CALLED, lanes=lanes)

    def tell(daemon: Daemon, attempt: Attempt) -> None:
        if known and isinstance(attempt, Responding):
            daemon.step = 1
            for number in range(2):
                daemon.tally.saw(32766 + number, daemon.tally.at(START_S - 0.1 + number / 20))

    assert known == World("blacklist", "sequential", rows=[row], transport=transport, on_attempt=tell).run().ok
