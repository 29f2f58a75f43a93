"""What a fan takes of this host, and when.
It refuses to send anything further than the loopback device."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from punchd.core.budget import Budget, Limit, Limits
from punchd.daemon.fans import Fans
from punchd.daemon.held import Held
from punchd.daemon.host import Host
from punchd.daemon.recent import Recent
from punchd.words.addresses import PUNCH_PORTS
from punchd.words.effects import OpenFan, Spray
from punchd.words.events import Event, Signal, Withheld

LANES = tuple((22000 + place, 9) for place in range(40))


def test_a_burst_that_the_budget_refuses_takes_no_port() -> None:
    """When it may leave, it may be a shorter one; what it held meanwhile would be missing in the next fan's line."""
    now, said = [0.0], list[Event]()
    budget = Budget(Limits(target=Limit(1000.0, len(LANES))))
    host = cast("Host", SimpleNamespace(ports=PUNCH_PORTS))

    async def spray() -> list[int]:
        loop = asyncio.get_running_loop()
        fans = Fans(loop, host, budget, clock=lambda: now[0], recent=Recent())
        held = Held(0, 1, "127.0.0.1", 0, "127.0.0.1", 9, stream=False)
        report: Any = said.append
        fans.open(held, OpenFan(0, "udp-birthday", 0, "127.0.0.1", 9, ours=False, tag=b"8 octets", seed=1),
                  caller=0, report=report)  # fmt: skip
        assert held.fan is not None
        taken = []
        budget.take("127.0.0.1", 0, 10, now[0], dies=False)  # another fan's
        for _ in range(2):
            fans.spray(held, Spray(0, Signal.FIRE, LANES), 0, report)
            taken.append(len(held.fan.socks))
            now[0] += 1.0
        fans.close(held)
        return taken

    first, second = asyncio.run(spray())
    assert 0 == first
    assert 0 < second <= len(LANES)
    assert [Withheld] == [type(event) for event in said]
