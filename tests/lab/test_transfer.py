"""The lab's definition of a connection that works must not fail one that does.
It refuses namespaces: a relay on the loopback device loses what it is told to lose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from punchd.lab.transfer import TransferError, exchange

HAS_ALL = ((1 << 65) - 1).to_bytes(16, "big")


class Relay:
    """Carries datagrams between two sockets, but for the first `losses` by which one side says that it has all."""

    def __init__(self, losses: int) -> None:
        self.carried = 0
        self._left = [losses, 0]
        self._near, self.ends = zip(*(_pair() for _ in range(2)), strict=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for side, near in enumerate(self._near):
            loop.add_reader(near, self._carry, side)
        try:
            yield
        finally:
            for near in self._near:
                loop.remove_reader(near)
            for sock in (*self._near, *self.ends):
                sock.close()

    def _carry(self, side: int) -> None:
        data = self._near[side].recv(2048)
        if data[2:18] == HAS_ALL and self._left[side]:
            self._left[side] -= 1
            return
        self.carried += 1
        self._near[1 - side].send(data)


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (one, other):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


async def _exchanged(relay: Relay, *, patience_s: float) -> list[BaseException | None]:
    with relay.at_work():
        tasks = [exchange(end, patience_s=patience_s) for end in relay.ends]
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
def test_who_missed_the_last_word_gets_it_again() -> None:
    """Full receive buffers lost all that were said in one breath; who had said them was gone, and the run `no-data`.

    At least once a round it is asked again, so it must say more than one breath holds."""
    assert [None, None] == asyncio.run(_exchanged(Relay(losses=80), patience_s=4.0))


def test_without_loss_nothing_is_said_twice_but_the_last_word() -> None:
    """Repeating what may still be under way fills the receive buffers of a busy machine."""
    relay = Relay(losses=0)
    assert [None, None] == asyncio.run(_exchanged(relay, patience_s=4.0))
    assert relay.carried <= 2 * (65 + 8)


@pytest.mark.slow
def test_a_side_that_is_not_there_is_no_data() -> None:
    """The lingering must not make a failure a success, nor last."""
    relay = Relay(losses=0)

    async def alone() -> None:
        with relay.at_work():
            await exchange(relay.ends[0], patience_s=0.5)

    with pytest.raises(TransferError, match="not both ways"):
        asyncio.run(alone())
