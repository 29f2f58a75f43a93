"""Claims about core/candidates.py: who is near whom, and where to aim first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.core.candidates import Aim, Nearness, Target, nearness, targets
from punchd.words.addresses import Endpoint, why_no_target
from punchd.words.nat import Descriptor, Face, NatClass

HERE, THERE = "203.0.113.2", "198.51.100.2"
TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "udp"])


def host(address: str, public: str, *, port: int = 22001, ttl: int | None = 2, udp: bool = True) -> Descriptor:
    """A host whose NAT maps port 22001 to 42001, and so on."""
    face = Face(port, Endpoint(public, port + 20000), NatClass())
    return Descriptor(address, 1_795_365_636_908, face, face if udp else None, ttl)


ANNA = host("10.0.1.2", HERE)


@TRANSPORTS
def test_peers_with_other_public_addresses_are_aimed_at_there(transport: str) -> None:
    """Equal or not, private addresses mean nothing between two networks, and may be somebody else's."""
    bob = host("10.0.1.3", THERE, port=23001)
    assert Nearness.APART is nearness(ANNA, bob)
    public = Target(Aim.PUBLIC, Endpoint(HERE, 42001), Endpoint(THERE, 43001))
    assert (public,) == targets(ANNA, bob, transport, allow_private=True)


@TRANSPORTS
def test_behind_one_nat_private_endpoints_come_before_the_hairpin(transport: str) -> None:
    """Many routers turn nothing around, and those that do are slower."""
    bob = host("10.0.1.3", HERE, port=23001)
    assert Nearness.SAME_NAT is nearness(ANNA, bob)
    private = Target(Aim.PRIVATE, Endpoint("10.0.1.2", 22001), Endpoint("10.0.1.3", 23001))
    hairpin = Target(Aim.HAIRPIN, Endpoint(HERE, 42001), Endpoint(HERE, 43001))
    assert (private, hairpin) == targets(ANNA, bob, transport, allow_private=True)
    assert (hairpin,) == targets(ANNA, bob, transport, allow_private=False)


@pytest.mark.parametrize(("ttl_a", "ttl_b"), [(3, 3), (2, 3), (4, None)])
def test_more_layers_than_one_mean_a_carriers_nat(ttl_a: int | None, ttl_b: int | None) -> None:
    """The plan may think better of a carrier's hairpin than of a home router's."""
    anna, bob = host("10.0.1.2", HERE, ttl=ttl_a), host("192.168.1.3", HERE, ttl=ttl_b)
    assert Nearness.SAME_CARRIER is nearness(anna, bob)
    assert [Aim.PRIVATE, Aim.HAIRPIN] == [one.aim for one in targets(anna, bob, "tcp", allow_private=True)]


def test_unknown_ttl_is_taken_for_one_layer() -> None:
    """What most hosts have."""
    assert Nearness.SAME_NAT is nearness(host("10.0.1.2", HERE, ttl=None), host("10.0.1.3", HERE, ttl=None))


def test_equal_private_addresses_leave_the_hairpin() -> None:
    """Two homes behind one carrier, both 192.168.1.2: who sends there sends to himself."""
    anna, bob = host("192.168.1.2", HERE, ttl=3), host("192.168.1.2", HERE, ttl=3)
    assert [Aim.HAIRPIN] == [one.aim for one in targets(anna, bob, "udp", allow_private=True)]


def test_transport_that_one_side_lacks_has_no_target() -> None:
    """Its UDP is blocked; that its TCP shows the same public address still tells where it is."""
    bob = host("10.0.1.3", HERE, udp=False)
    assert () == targets(ANNA, bob, "udp", allow_private=True)
    assert () == targets(bob, ANNA, "udp", allow_private=True)
    assert Aim.PRIVATE is targets(ANNA, bob, "tcp", allow_private=True)[0].aim


@given(st.ip_addresses(v=4).map(str), st.booleans())
def test_lying_descriptor_names_no_third_party_as_private(address: str, allow_private: bool) -> None:
    """The peer's `host` is its own word: anybody's public address, a loopback or a broadcast one is never aimed at."""
    for target in targets(ANNA, host(address, HERE), "udp", allow_private=allow_private):
        if target.aim is Aim.PRIVATE:
            assert allow_private
            assert why_no_target(target.peer.address, allow_private=True) is None
            assert why_no_target(target.peer.address, allow_private=False) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "255.255.255.255", "169.254.1.1", THERE, "224.0.0.1"])
def test_special_and_public_addresses_are_no_private_ones(address: str) -> None:
    """The property above seldom draws them."""
    assert [Aim.HAIRPIN] == [one.aim for one in targets(ANNA, host(address, HERE), "tcp", allow_private=True)]
