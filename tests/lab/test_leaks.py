"""Whatever becomes of attempts, afterwards both daemons hold exactly what they held before.

It refuses to look at sums alone: descriptors, flows, tuples, budgets, tasks, timers, objects, rules and sockets are
counted each for itself (bent_daemon.py, `counted`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from duo import Duo, Talker, duo, initiate
from running import BENT, QUIET_S, held_sockets, punch_sockets, rules

from punchd import client

pytestmark = [pytest.mark.lab, pytest.mark.slow]

# all of them pass where nothing is in the way
TECHNIQUES = ["tcp-direct", "tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "udp", "auto"]
WAITS = {2, 3, 10}
"""SYN-SENT, SYN-RECV and LISTEN: states of a socket that still hopes."""

Act = Callable[[Duo, random.Random], Awaitable[None]]


@pytest.fixture(scope="module", name="both")
def _both() -> Iterator[Duo]:
    counted = [*BENT, "counted"]
    with duo("open", "open", command_a=counted, command_b=counted) as made:
        for technique in TECHNIQUES:
            asyncio.run(_succeed(made, random.Random(technique)))
        time.sleep(QUIET_S)
        yield made


async def _succeed(both: Duo, dice: random.Random) -> None:
    name = dice.choice(TECHNIQUES)
    techniques = name if name == "auto" else [name]
    a, b = await both.run(techniques, transport="udp" if name == "udp" else "tcp", early=dice.random() < 0.3)
    assert a["ok"], a
    assert b["ok"], b


async def _fail(both: Duo, dice: random.Random) -> None:
    """Nobody carries the notification, or B gets it and A is gone."""
    async with client.connect(both.a.path) as near, client.connect(both.b.path) as far:
        name = dice.choice(TECHNIQUES)
        attempt = await _begin(both, near, name, timeout_ms=dice.randrange(1, 300))
        if dice.random() < 0.5:
            try:
                text = await attempt.notification()
            except client.PunchFailed:
                return
            await attempt.cancel()
            answering = await far.respond(text, timeout_ms=dice.randrange(1, 300))
            with pytest.raises(client.PunchFailed):
                await answering.result()
        with pytest.raises(client.PunchFailed):
            await attempt.result()


async def _cancel(both: Duo, dice: random.Random) -> None:
    """Either side changes its mind at a random moment; it may be too late."""
    async with client.connect(both.a.path) as near, client.connect(both.b.path) as far:
        attempts = [await _begin(both, near, dice.choice(TECHNIQUES), timeout_ms=1000)]
        text = await attempts[0].notification()
        if dice.random() < 0.8:
            attempts.append(await far.respond(text, timeout_ms=1000))
        await asyncio.sleep(dice.random() * 0.02)
        await dice.choice(attempts).cancel()
        for attempt in attempts:
            try:
                (await attempt.result()).socket.close()
            except client.PunchFailed:
                pass


async def _die(both: Duo, dice: random.Random) -> None:
    """Either application vanishes at a random moment, the other finds out by itself."""
    async with client.connect(both.b.path) as far:
        near = client.connect(both.a.path)
        await near.__aenter__()
        answering = None
        try:
            attempt = await _begin(both, near, dice.choice(TECHNIQUES), timeout_ms=60_000)
            if dice.random() < 0.8:
                answering = await far.respond(await attempt.notification(), timeout_ms=dice.randrange(50, 500))
            await asyncio.sleep(dice.random() * 0.01)
        finally:
            await near.__aexit__(None, None, None)
        if answering is not None and dice.random() < 0.5:
            try:
                (await answering.result()).socket.close()
            except client.PunchFailed:
                pass


async def _be_refused(both: Duo, dice: random.Random) -> None:
    """Requests that never become attempts."""
    async with client.connect(both.a.path) as near:
        for peer, techniques in (("127.0.0.1", None), (both.lab.public_b, ["udp"]), (both.lab.public_b, ["none"])):
            attempt = await near.initiate(peer=peer, self_=both.lab.public_a, techniques=techniques)
            with pytest.raises(client.PunchFailed):
                await attempt.result()
        refused = await near.respond("cDEB" + "A" * dice.randrange(200))
        with pytest.raises(client.PunchFailed):
            await refused.result()


async def _begin(both: Duo, near: client.Daemon, name: str, *, timeout_ms: int) -> client.Attempt:
    return await near.initiate(
        peer=both.lab.public_b,
        self_=both.lab.public_a,
        techniques=name if name == "auto" else [name],
        transport="udp" if name == "udp" else "tcp",
        timeout_ms=timeout_ms,
    )


ACTS: dict[str, Act] = {
    "success": _succeed, "failure": _fail, "cancel": _cancel, "death": _die, "refusal": _be_refused,
}  # fmt: skip


def _holds_nothing_new(both: Duo, deeds: Callable[[], None]) -> None:
    """Perform the deeds; afterwards each count of each daemon is what it was."""
    daemons = (both.a, both.b)
    for daemon in daemons:
        daemon.settles(daemon.counts() | {"flows": 0, "tuples": 0})
    before = [(daemon.counts(), rules(daemon.place)) for daemon in daemons]
    deeds()
    for daemon, (counts, ruleset) in zip(daemons, before, strict=True):
        assert {} == daemon.settles(counts)
        assert ruleset == rules(daemon.place)
        assert [] == held_sockets(daemon.place)
    for daemon in daemons:
        assert [] == [sock for sock in punch_sockets(daemon.place) if sock["state"] in WAITS]


@pytest.mark.parametrize("ending", sorted(ACTS))
def test_each_ending_gives_back_everything(both: Duo, ending: str) -> None:
    """One kind of ending at a time, so that a leak names its cause."""
    dice = random.Random(ending)

    async def deeds() -> None:
        await asyncio.gather(*(ACTS[ending](both, dice) for _ in range(30)))

    _holds_nothing_new(both, lambda: asyncio.run(deeds()))


def test_three_hundred_mixed_attempts_give_back_everything(both: Duo) -> None:
    """Endings that meet each other: ports shared, descriptors reused, sessions closed while others report."""
    dice = random.Random(2)
    acts = [dice.choice(list(ACTS.values())) for _ in range(300)]

    async def deeds() -> None:
        for start in range(0, len(acts), 60):
            await asyncio.gather(*(act(both, dice) for act in acts[start : start + 60]))

    _holds_nothing_new(both, lambda: asyncio.run(deeds()))


def test_attempts_of_a_killed_caller_are_given_back(both: Duo) -> None:
    """One connection with a hundred open attempts, closed at once."""

    def deeds() -> None:
        with Talker(both.a.path) as talker:
            for number in range(100):
                talker.say(initiate(both.lab, TECHNIQUES[number % len(TECHNIQUES)], id=str(number)))
            for _ in range(100):
                assert "notification" in talker.hear()

    _holds_nothing_new(both, deeds)


def test_memory_does_not_grow_with_the_number_of_past_attempts(both: Duo) -> None:
    """A daemon runs for months: what an ended attempt keeps, it keeps for ever."""
    dice = random.Random(3)

    async def deeds() -> None:
        await asyncio.gather(*(_be_refused(both, dice) for _ in range(50)))
        await asyncio.gather(*(_fail(both, dice) for _ in range(50)))

    for _ in range(18):  # by then every cache, log of mappings and free list has its size
        asyncio.run(deeds())
    before = both.a.counts()
    for _ in range(6):
        asyncio.run(deeds())
    assert {} == both.a.settles(before)
    assert both.a.counts()["blocks"] - before["blocks"] < 300  # of the interpreter, and for as many attempts


def test_waiting_attempts_cost_no_processor_time(both: Duo) -> None:
    """Nothing polls: two hundred holes that wait for a message are as quiet as none."""
    with Talker(both.a.path) as talker:
        for number in range(200):
            talker.say(initiate(both.lab, "tcp-midstream", id=str(number)))
        for _ in range(200):
            assert "notification" in talker.hear()
        before_s = both.a.cpu_s()
        time.sleep(1)
        assert both.a.cpu_s() - before_s < 0.05
