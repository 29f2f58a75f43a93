"""Claims about daemon/networks.py: what is remembered, for which network, and for how long.
The clock and the look at the routes are given; tests/edge/test_gateway.py reads real tables.
"""

from __future__ import annotations

from punchd.daemon.networks import LOOK_S, NETWORKS_MAX, PUBLICS_MAX, Networks
from punchd.edge.gateway import Network

HOME = Network("192.168.1.0/24", "02:00:c0:a8:01:01")
CAFE = Network("192.168.1.0/24", "02:00:00:00:ca:fe")
HERE, PUBLIC = "192.168.1.20", "203.0.113.2"


class Host:
    """A clock that stands still, and the network that the host is in."""

    def __init__(self, *, life_s: float = 3600.0) -> None:
        self.now, self.network, self.looks = 1000.0, HOME, 0
        self.found = Networks(life_s=life_s, look=self._look, clock=lambda: self.now)

    def _look(self, local: str) -> Network | None:
        self.looks += 1
        return self.network


def test_what_was_found_is_believed_until_it_expires() -> None:
    """Providers rebuild their nets."""
    host = Host()
    host.found.learn(HERE, 3)
    assert 3 == host.found.ttl(HERE)
    host.now += 3599
    assert 3 == host.found.ttl(HERE)
    host.now += 2
    assert host.found.ttl(HERE) is None


def test_equal_prefixes_behind_other_gateways_are_other_networks() -> None:
    """Half the homes and cafes of the world are 192.168.1.0/24."""
    host = Host()
    host.found.learn(HERE, 3)
    host.network = CAFE
    host.now += LOOK_S
    assert host.found.ttl(HERE) is None
    host.found.learn(HERE, 4)
    assert 4 == host.found.ttl(HERE)
    host.network = HOME
    host.now += LOOK_S
    assert 3 == host.found.ttl(HERE)


def test_attempts_in_a_row_look_once() -> None:
    """Thousands of attempts a second must not read a file each; without anything remembered, none does."""
    host = Host()
    for _ in range(100):
        assert host.found.ttl(HERE) is None
    assert 0 == host.looks
    host.found.learn(HERE, 3)
    for _ in range(100):
        host.found.ttl(HERE)
    assert 1 == host.looks
    host.now += LOOK_S
    host.found.ttl(HERE)
    assert 2 == host.looks


def test_unknown_ttl_or_network_is_not_remembered() -> None:
    """What was known before is better than nothing."""
    host = Host()
    host.found.learn(HERE, 3)
    host.found.learn(HERE, None)
    assert 3 == host.found.ttl(HERE)
    nowhere = Host()
    nowhere.network = None
    nowhere.found.learn(HERE, 3)
    assert nowhere.found.ttl(HERE) is None


def test_memory_can_be_switched_off() -> None:
    """`--network-memory 0`."""
    host = Host(life_s=0)
    host.found.learn(HERE, 3)
    assert host.found.ttl(HERE) is None


def test_memory_has_an_end() -> None:
    """A machine on a train meets networks without number; the oldest is forgotten first."""
    host = Host()
    for number in range(NETWORKS_MAX + 1):
        host.network = Network(HOME.prefix, f"02:00:00:00:00:{number:02x}")
        host.found.learn(HERE, 2)
    assert 2 == host.found.ttl(HERE)
    host.network = Network(HOME.prefix, "02:00:00:00:00:00")
    host.now += LOOK_S
    assert host.found.ttl(HERE) is None


def test_public_addresses_belong_to_the_network_where_they_were_seen() -> None:
    """A responder believes that a peer is behind its own NAT only where it has been seen at that address itself."""
    host = Host()
    assert not host.found.shows(HERE, PUBLIC)
    host.found.show(HERE, PUBLIC)
    assert host.found.shows(HERE, PUBLIC)
    assert not host.found.shows(HERE, "198.51.100.2")
    host.now += 30 * 24 * 3600  # who keeps an endpoint asks once
    assert host.found.shows(HERE, PUBLIC)
    host.network = CAFE
    assert not host.found.shows(HERE, PUBLIC)


def test_public_addresses_are_forgotten_the_oldest_first() -> None:
    """And not remembered at all with `--network-memory 0`."""
    host = Host()
    for number in range(PUBLICS_MAX + 1):
        host.found.show(HERE, f"203.0.{number // 256}.{number % 256}")
    assert not host.found.shows(HERE, "203.0.0.0")
    assert host.found.shows(HERE, "203.0.0.1")
    without = Host(life_s=0)
    without.found.show(HERE, PUBLIC)
    assert not without.found.shows(HERE, PUBLIC)
