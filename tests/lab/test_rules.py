"""The static rules, seen from outside: what the own kernel may say while punchd runs, and what not.

It refuses to read the ruleset; packets tell.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from packets import Probe
from running import Daemon

from punchd.lab.topology import Lab
from punchd.lab.wire import ACK, RST, Packet

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("rules")]

INSIDE, OUTSIDE = 25555, 33434
REFUSED = 111


@pytest.fixture(scope="module", name="lab")
def _lab() -> Iterator[Lab]:
    with Lab("open", "open", echo=None) as made, Daemon(made.a):
        yield made


def test_closed_port_of_the_punch_range_is_refused_as_ever(lab: Lab) -> None:
    """A mistyped port must fail at once, on loopback and from afar."""
    for place, address in ((lab.a, "127.0.0.1"), (lab.b, lab.public_a)):
        with place.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            assert REFUSED == sock.connect_ex((address, INSIDE))


@pytest.mark.parametrize(("port", "answered"), [(INSIDE, False), (OUTSIDE, True)])
def test_stray_ack_is_answered_outside_of_the_punch_range_alone(lab: Lab, *, port: int, answered: bool) -> None:
    """A peer's first segment comes before its socket is made; a RST would kill the peer's."""
    probe = Probe(lab.b)
    try:
        probe.send(Packet(lab.public_b, lab.public_a, socket.IPPROTO_TCP, 40000, port, ACK, seq=1, ack=1, ttl=64))
        reset = probe.receive(lambda packet: packet.sport == port and bool(packet.flags & RST))
    finally:
        probe.close()
    assert answered == (reset is not None)
