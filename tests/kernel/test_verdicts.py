"""The queue of time-exceeded errors on a real device: what is asked, and how long one turn of verdicts is.
What the verdicts are, tests/lab/test_icmp.py shows.
"""

import select

import pytest
from netns import A, B, Net, icmp_error

from bench._errors import time_exceeded
from punchd.edge.native import FLAG_ACK, Flows, Segment, build
from punchd.edge.nfqueue import VERDICTS_PER_WAKE, IcmpQueue
from punchd.edge.rules import Rules
from punchd.words.addresses import PUNCH_PORTS
from punchd.words.events import WINDOWS, Signal

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("signal", "quoted_len", "asked"),
    [(Signal.PRIME, 40, False), (Signal.PRIME, 28, True), (Signal.FIRE, 40, True)],
)
def test_a_primers_death_is_no_question_where_its_quote_says_what_it_was(
    quiet_net: Net, signal: Signal, quoted_len: int, *, asked: bool
) -> None:
    """Each tcp-midstream punch has one; the kernel can tell it from all others unless the router quotes the least."""
    primer = Segment(src=A, dst=B, src_port=PUNCH_PORTS.low, dst_port=9, seq=1, ack=1, flags=FLAG_ACK, ttl=1,
                     window=WINDOWS[signal])  # fmt: skip
    with quiet_net.inside("a"):
        queue = IcmpQueue(lambda _: True)
        rules = Rules(PUNCH_PORTS, queue.number)
    try:
        with quiet_net.sender("b") as far:
            far.send([icmp_error(B, A, 11, build(primer)[:quoted_len])])
        assert asked == bool(select.select([queue], [], [], 0.2)[0])
    finally:
        rules.close()
        queue.close()


def test_a_turn_of_verdicts_ends_though_more_errors_wait(quiet_net: Net) -> None:
    """Under a flood the queue is never empty: a turn without end would stop every attempt of the daemon."""
    errors = 3 * VERDICTS_PER_WAKE + 1
    flows = Flows(4)
    with quiet_net.inside("a"):
        queue = IcmpQueue(lambda packet: flows.get_quoted(packet) != 0)
        rules = Rules(PUNCH_PORTS, queue.number)
    try:
        with quiet_net.sender("b") as far:
            far.send([time_exceeded(B, A, PUNCH_PORTS.low)] * errors)
        turns = []
        while select.select([queue], [], [], 0.2)[0]:
            before = queue.passed
            queue.read()
            turns.append(queue.passed - before)
        assert [VERDICTS_PER_WAKE] * 3 + [1] == turns
    finally:
        rules.close()
        queue.close()
