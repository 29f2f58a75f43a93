"""The wire's story names who sent what, in order, and what died on the way."""

from __future__ import annotations

import os
import socket
import time

import pytest
from packets import MUTE, Probe

from punchd.lab.topology import Lab
from punchd.lab.wire import ACK, SYN, Packet, Wire, story

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_story_tells_a_primed_simultaneous_open() -> None:
    """The demo shows it; a reader must see at a glance why the hole is there."""
    with Lab("linux", "linux-reject", delay_ms=2, echo=None) as lab:
        for host in (lab.a, lab.b):
            host.nft(MUTE)
        a, b = Probe(lab.a), Probe(lab.b)
        out = Packet(lab.a.address, lab.public_b, socket.IPPROTO_TCP, 1000, 2000, SYN, 1)
        back = Packet(lab.b.address, lab.public_a, socket.IPPROTO_TCP, 2000, 1000, SYN, 1)
        with Wire(lab) as wire:
            for sender, packet, ttl in ((a, out, 2), (b, back, 64)):
                sender.send(Packet(**{**_fields(packet), "ttl": ttl}))
                time.sleep(0.02)
            a.send(Packet(**{**_fields(out), "flags": SYN | ACK, "ack": 2}))
            time.sleep(0.02)
            a.send(Packet(**{**_fields(out), "sport": 1001}))
            time.sleep(0.02)
        a.close()
        b.close()
    stories = wire.stories()
    assert {
        "203.0.113.2:1000 - 198.51.100.2:2000": "A SYN (dies at r1), time exceeded to A, B SYN, A SYN-ACK",
        "203.0.113.2:1001 - 198.51.100.2:2000": "A SYN, NAT b RST-ACK",
    } == {flow: story(sights) for flow, sights in stories.items()}


def _fields(packet: Packet) -> dict[str, object]:
    return {name: getattr(packet, name) for name in packet.__slots__}
