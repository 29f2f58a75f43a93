"""Model and kernel agree: the same walks of packets, drawn at random, pass both halves of the lab alike.

It refuses what is known to differ, and says so: an error about a packet that conntrack calls INVALID (the kernel's
cone loses it), and a mapping that an error or a RST killed (the kernel's remembers its numbers; no 4-tuple serves
twice). Of a thousand longer walks two more differed: a SYN-ACK out with a number far off, after one had come in.

    PUNCHD_WALKS=100 ./dev test tests/lab/test_model_walks.py
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import pytest
from street import TCP, UDP, Flow, street_of
from street_model import ModelFlow, ModelStreet

from punchd.lab.pages import KINDS
from punchd.words.events import ACK, RST, SYN

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

WALKS = int(os.environ.get("PUNCHD_WALKS", "1"))
STEPS = 6


@dataclass(frozen=True, slots=True)
class Step:
    """One packet: from inside, or back from the peer, from another port of its, or from elsewhere."""

    way: str
    flags: int
    seq: int
    ack: int = 0
    low: bool = False


OUT = (
    Step("out", SYN, 1000), Step("out", SYN, 5000), Step("out", SYN | ACK, 1000, 9001),
    Step("out", SYN | ACK, 5_000_000, 9001), Step("out", ACK, 1001, 9001), Step("out", ACK, 700_000, 80_000),
    Step("out", RST, 1001),
)  # fmt: skip
BACK = (
    Step("back", SYN, 9000), Step("back", SYN | ACK, 9000, 1001), Step("back", SYN | ACK, 9000, 5001),
    Step("back", ACK, 9001, 1001), Step("back", RST, 9001), Step("back", RST | ACK, 0, 1001),
)  # fmt: skip
STRAYS = (
    Step("other port", SYN, 9000), Step("other port", SYN | ACK, 9000, 1001), Step("other address", ACK, 9001, 1001),
    Step("other address", SYN, 9000),
)  # fmt: skip
LOW = Step("out", SYN, 1000, low=True)


def drawn(dice: random.Random, kind: str) -> list[Step]:
    """Mostly the two peers in turn; the first may be a primer."""
    steps = [dice.choice(dice.choices((OUT, BACK, STRAYS), (5, 5, 2))[0]) for _ in range(STEPS)]
    return [LOW, *steps] if kind != "icmp-kills" and dice.random() < 0.4 else steps


def walked(flow: Flow | ModelFlow, steps: list[Step]) -> list[bool]:
    """Which of them passed; of a primer, whether its error came back."""
    passed = []
    for step in steps:
        flags, seq, ack = (step.flags, step.seq, step.ack) if flow.protocol == TCP else (0, 0, 0)
        if step.low:
            flow.out(flags, seq=seq, ack=ack, ttl=flow.street.hole_ttl)
            passed.append(flow.error() is not None)
        elif step.way == "out":
            passed.append(flow.out(flags, seq=seq, ack=ack) is not None)
        else:
            place = {"back": flow, "other port": flow.other_port(), "other address": flow.other_address()}[step.way]
            passed.append(place.back(flags, seq=seq, ack=ack) is not None)
    return passed


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_of_packets_passes_both_halves_alike(kind: str) -> None:
    """A model that is milder than the kernel finds techniques that fail; a stricter one hides those that work."""
    dice = random.Random(f"{kind} {WALKS}")
    model = ModelStreet.of(kind, kind)
    with street_of(kind) as kernel:
        for _ in range(WALKS):
            protocol, steps = dice.choice((TCP, TCP, TCP, UDP)), drawn(dice, kind)
            wanted = walked(kernel.flow(protocol), steps)
            assert wanted == walked(model.flow(protocol), steps), steps
