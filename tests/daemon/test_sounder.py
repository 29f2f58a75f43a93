"""What a sounding tells of the mappings that it makes.
It refuses to model routers: the loopback device has none."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from punchd.core.ttl import LEAST, REPEAT_S, TTLS
from punchd.daemon.sounder import Sounder
from punchd.words.addresses import Endpoint


class Owner:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.sounded = 0

    def sounds(self) -> None:
        self.sounded += 1

    def found(self) -> None:
        pass

    def broke(self, error: Exception) -> None:
        raise error


@pytest.mark.slow
def test_each_hop_beyond_the_gateway_makes_one_mapping_however_often_it_is_asked() -> None:
    """Whoever counts more takes as many of the neighbours' mappings for ours, and appoints ports that are gone."""

    async def sound(server: socket.socket, owner: Owner) -> int:
        target = Endpoint(*server.getsockname())
        loop = asyncio.get_running_loop()
        expires = time.monotonic() + 5
        sounder = Sounder(loop, "127.0.0.1", target, expires=expires, clock=time.monotonic, owner=owner)
        sounder.begin()
        await asyncio.sleep(REPEAT_S + 0.1)
        sounder.stop()
        datagrams = 0
        while True:
            try:
                server.recv(100)
            except BlockingIOError:
                return datagrams
            datagrams += 1

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        owner = Owner()
        assert 2 * len(TTLS) == asyncio.run(sound(server, owner))
        assert len(TTLS) - (LEAST - 1) == owner.sounded
