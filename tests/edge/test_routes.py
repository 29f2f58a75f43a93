"""Whether remembered source addresses follow the kernel's routes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from punchd.edge import routes
from punchd.edge.routes import Routes
from punchd.lab.namespace import Namespace, new_prefix

FAR = "192.0.2.7"


@pytest.fixture
def place() -> Iterator[Namespace]:
    name = new_prefix() + "routes"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name, "", echo=None)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.lab
def test_an_answer_follows_addresses_routes_and_links(place: Namespace) -> None:
    """A laptop changes its network while the daemon runs; the next attempt must leave from the new address."""

    def ip(line: str) -> None:
        place.run(["ip", *line.split()])

    ip("link add eth0 type veth peer name eth1")
    ip("link set eth1 up")
    ip("link set eth0 up")
    ip("addr add 10.9.0.1/24 dev eth0")
    with place.enter():
        kept = Routes()
        with pytest.raises(OSError, match="unreachable"):
            kept.source_address(FAR)
        ip("route add default via 10.9.0.2")
        assert "10.9.0.1" == kept.source_address(FAR)
        ip("addr add 10.9.1.1/24 dev eth0")
        ip(f"route add {FAR} via 10.9.1.2 src 10.9.1.1")
        assert "10.9.1.1" == kept.source_address(FAR)
        ip("addr del 10.9.1.1/24 dev eth0")
        assert "10.9.0.1" == kept.source_address(FAR)
        ip("link set eth0 down")
        with pytest.raises(OSError, match="unreachable"):
            kept.source_address(FAR)
        kept.close()


@pytest.mark.lab
def test_the_kernel_is_asked_once_while_nothing_changes(place: Namespace, monkeypatch: Any) -> None:
    """A look-up for each of thousands of attempts a second costs a socket each."""
    asked: list[str] = []
    monkeypatch.setattr(routes, "_asked", lambda target: asked.append(target) or "10.9.0.1")
    with place.enter():
        kept = Routes()
        for _ in range(100):
            assert "10.9.0.1" == kept.source_address(FAR)
        kept.close()
    assert [FAR] == asked
