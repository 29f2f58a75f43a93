"""The caller of the naive rendezvous server: what a peer leaves there is what others find.

It refuses other hosts: server and peers are in this process.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from punchd.meeting import Meeting, MeetingError, Told, address_of

_PATH = Path(__file__).parents[1] / "examples" / "rendezvous.py"
_SPEC = importlib.util.spec_from_file_location("rendezvous", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
rendezvous: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["rendezvous"] = rendezvous
_SPEC.loader.exec_module(rendezvous)

DESCRIPTOR = "ZTEBAQoAAgIBogR5z7UAc-jGM2QCc-gBAAEAAAA0O8uH"


async def _serve() -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(rendezvous.Rendezvous().meet, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.asyncio
async def test_descriptor_left_as_endpoint_is_what_peers_find() -> None:
    """With it the finder knows how the other's NAT maps; `from` still needs the address that the server sees."""
    server, port = await _serve()
    async with server, Meeting("127.0.0.1", port, "anna", endpoint=DESCRIPTOR) as anna:
        async with Meeting("127.0.0.1", port, "bob") as bob:
            assert DESCRIPTOR == address_of(await bob.find("anna"))
            assert (DESCRIPTOR, bob.you) == (anna.endpoint, bob.endpoint)
            await anna.tell("bob", "cDEB")
            assert Told("anna", DESCRIPTOR, anna.you, "cDEB") == await bob.hear()


@pytest.mark.asyncio
async def test_without_one_the_seen_address_is_found() -> None:
    """NATs that keep ports, the usual kind, need no more; the port is another connection's."""
    server, port = await _serve()
    async with server, Meeting("127.0.0.1", port, "anna") as anna, Meeting("127.0.0.1", port, "bob") as bob:
        found = await bob.find("anna")
        assert anna.you == found
        assert "127.0.0.1" == address_of(found)


@pytest.mark.asyncio
async def test_refusal_of_the_server_is_told() -> None:
    """Two peers of one name can't be told apart."""
    server, port = await _serve()
    async with server, Meeting("127.0.0.1", port, "anna"):
        with pytest.raises(MeetingError, match="the name anna is taken"):
            await Meeting("127.0.0.1", port, "anna").__aenter__()
