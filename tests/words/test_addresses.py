"""Addresses and endpoints: one spelling each, and which of them nothing is ever sent to.
It refuses to resolve names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.words.addresses import (
    CONNECT_PORTS,
    LISTEN_PORTS,
    PUNCH_PORTS,
    Endpoint,
    PortRange,
    parse_address,
    why_no_target,
)


@given(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
def test_endpoints_survive_their_spelling(address: str, port: int) -> None:
    """What a reply says can be given as `peer` again."""
    assert Endpoint(address, port) == Endpoint.parse(str(Endpoint(address, port)))
    assert Endpoint(address) == Endpoint.parse(str(Endpoint(address)))


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:+80",
     "1.2.3.4: 80", "1.2.3.4:٣", ":80", "2001:db8::1", "[2001:db8::1]:80", "1.2.3.4:80:80"],
)  # fmt: skip
def test_anything_else_is_no_endpoint(text: str) -> None:
    """Nothing is guessed: a wrong guess would send packets to a stranger."""
    with pytest.raises(ValueError, match=r".+"):
        Endpoint.parse(text)


def test_ipv6_is_named_as_such() -> None:
    """It is not wrong, only not yet done."""
    with pytest.raises(ValueError, match="IPv6"):
        parse_address("2001:db8::1")


def test_a_port_range_holds_both_its_ends() -> None:
    """And only ports."""
    ports = PortRange(22000, 22009)
    assert (10, "22000-22009") == (len(ports), str(ports))
    assert 22000 in ports
    assert 22009 in ports
    assert 22010 not in ports
    assert 21999 not in ports
    assert "22000" not in ports


def test_the_punch_range_is_what_its_parts_are() -> None:
    """The ring and the rules know the whole, the core the parts; listeners never meet connecting sockets."""
    assert (PUNCH_PORTS.low, PUNCH_PORTS.high) == (LISTEN_PORTS.low, CONNECT_PORTS.high)
    assert LISTEN_PORTS.high + 1 == CONNECT_PORTS.low
    assert PUNCH_PORTS.high < 32768


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1", "loopback"), ("0.1.2.3", "this network"), ("224.0.0.1", "multicast"),
     ("239.255.255.250", "multicast"), ("255.255.255.255", "broadcast"), ("240.0.0.1", "reserved"),
     ("169.254.1.1", "link-local")],
)  # fmt: skip
def test_some_addresses_are_never_targets(address: str, reason: str) -> None:
    """Not even where private ones are allowed."""
    for allowed in (True, False):
        assert reason in (why_no_target(address, allow_private=allowed) or "")


@pytest.mark.parametrize("address", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"])
def test_private_targets_need_permission(address: str) -> None:
    """A notification must not make us scan the own network."""
    assert why_no_target(address, allow_private=False) is not None
    assert why_no_target(address, allow_private=True) is None


@pytest.mark.parametrize("address", ["203.0.113.2", "172.32.0.1", "100.63.255.255", "9.255.255.255", "1.1.1.1"])
def test_public_targets_are_free(address: str) -> None:
    """The borders of the private ranges included."""
    assert why_no_target(address, allow_private=False) is None
