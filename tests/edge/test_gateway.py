"""Claims about edge/gateway.py: prefix and gateway from the kernel's own tables, as proc_pid_net(5) prints them.
The tables are text here; tests/lab/test_hops.py has a daemon read real ones.
"""

from __future__ import annotations

import sys

import pytest

from punchd.edge.gateway import Network, find, shares_link

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are a little-endian machine's")

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan0\t00000000\tFE02A8C0\t0003\t0\t0\t500\t00000000\t0\t0\t0
wlan0\t0002A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
tun0\t0000080A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
NEIGHBOURS = """\
IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x2         02:00:c0:a8:01:01     *        eth0
192.168.2.1      0x1         0x0         00:00:00:00:00:00     *        wlan0
192.168.2.254    0x1         0x2         02:00:c0:a8:02:fe     *        wlan0
192.168.1.1      0x1         0x2         02:00:00:00:00:99     *        wlan0
"""


@pytest.mark.parametrize(
    ("local", "network"),
    [
        ("192.168.1.20", Network("192.168.1.0/24", "02:00:c0:a8:01:01")),
        ("192.168.2.20", Network("192.168.2.0/24", "02:00:c0:a8:02:fe")),  # the default route of the lower metric
        ("10.8.0.2", None),  # a tunnel has no gateway
        ("203.0.113.9", None),  # an address that no route knows
    ],
)
def test_network_is_prefix_and_gateways_mac(local: str, network: Network | None) -> None:
    """Of the interface that bears the address, where a host has several."""
    assert network == find(local, ROUTES, NEIGHBOURS)


def test_gateway_that_did_not_answer_yet_names_no_network() -> None:
    """An unresolved neighbour has a MAC of zeros, as in every network."""
    assert find("192.168.1.20", ROUTES, NEIGHBOURS.replace("02:00:c0:a8:01:01", "00:00:00:00:00:00")) is None


def test_routes_that_are_down_are_no_routes() -> None:
    """RTF_UP is clear while a cable is out."""
    assert find("192.168.1.20", ROUTES.replace("0003", "0002"), NEIGHBOURS) is None


def test_host_without_routes_has_no_network() -> None:
    """An empty namespace has the headlines alone."""
    assert find("192.168.1.20", ROUTES.splitlines()[0], NEIGHBOURS.splitlines()[0]) is None


@pytest.mark.parametrize(
    ("address", "on_link"),
    [
        ("192.168.1.77", True),
        ("192.168.2.77", False),  # another interface's
        ("10.8.0.9", False),  # a tunnel's
        ("10.0.0.9", False),  # behind the gateway
        ("192.168.1.200", False),  # a route of its own, by another gateway
        ("192.168.1.201", False),  # a container, say
    ],
)
def test_a_neighbour_shares_the_link_of_our_address(address: str, on_link: bool) -> None:
    """Nobody is asked to carry what goes there, so it can't go further."""
    more = "eth0\tC801A8C0\tFE01A8C0\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    more += "br0\tC901A8C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    assert on_link == shares_link("192.168.1.20", address, ROUTES + more)


def test_host_without_routes_has_no_neighbours() -> None:
    """An empty namespace."""
    assert not shares_link("192.168.1.20", "192.168.1.77", ROUTES.splitlines()[0])
