"""The queue of time-exceeded errors on a real device: how long one turn of verdicts is.
What the verdicts are, tests/lab/test_icmp.py shows.
"""

import select

import pytest
from netns import A, B, Net

from bench._errors import time_exceeded
from punchd.edge.native import Flows
from punchd.edge.nfqueue import VERDICTS_PER_WAKE, IcmpQueue
from punchd.edge.rules import Rules
from punchd.words.addresses import PUNCH_PORTS

pytestmark = pytest.mark.kernel


def test_a_turn_of_verdicts_ends_though_more_errors_wait(net: Net) -> None:
    """Under a flood the queue is never empty: a turn without end would stop every attempt of the daemon."""
    errors = 3 * VERDICTS_PER_WAKE + 1
    flows = Flows(4)
    with net.inside("a"):
        queue = IcmpQueue(lambda packet: flows.get_quoted(packet) != 0)
        rules = Rules(PUNCH_PORTS, queue.number)
    try:
        with net.sender("b") as far:
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
