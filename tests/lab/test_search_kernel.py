"""The orders of packets that the search finds in the model pass real NATs of the kernel, packet by packet.

It refuses to spray: where the search does, the drawn port is read off the wire, and orders in which it is needed
before it is drawn are left to the birthday techniques' own tests.

    PUNCHD_ORDERS=all ./dev test tests/lab/test_search_kernel.py      # each pair of kinds: minutes
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from packets import MUTE, Probe
from street import TCP, UDP

from punchd.lab.pages import KINDS, boxes
from punchd.lab.search import Found, Step, search, short
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet
from punchd.words.events import ACK, SYN

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

# the odd ones, and of each common order one
PAIRS = [
    ("linux-synfilter", "linux-noloose"),
    ("linux-noloose", "cone"),
    ("random", "cone"),
    ("icmp-kills", "linux-reject"),
    ("icmp-kills", "blacklist"),
    ("random", "linux-reject"),
    ("sequential", "cgn"),
    ("untracked", "rst-kills"),
]
ISN = (1_000, 9_000)
DATA_LEN = 100

_ports = itertools.count(20_000)


class Players:
    """Both hosts, played by raw packets."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts, self.nats = (lab.a, lab.b), (lab.nats_a, lab.nats_b)
        self.publics = lab.public_a, lab.public_b
        self.probes = Probe(lab.a), Probe(lab.b)
        self.outer = Probe(lab.r1, "nat"), Probe(lab.r3, "nat")
        self.server = Probe(lab.server)
        for host in (lab.a, lab.b, lab.server):
            host.nft(MUTE)

    def close(self) -> None:
        for probe in (*self.probes, *self.outer, self.server):
            probe.close()

    def play(self, found: Found) -> list[bool]:
        """Which steps arrived."""
        protocol = TCP if found.transport == "tcp" else UDP
        inside = next(_ports), next(_ports)
        knows = [self._next(1, inside[1], protocol), self._next(0, inside[0], protocol)]
        drawn = [_is_random(kind) for kind in (found.a, found.b)]
        sent, arrived = [0, 0], []
        for step in found.steps or ():
            side, far = step.side, 1 - step.side
            self.probes[far].forget()
            self.outer[side].forget()
            self.probes[side].send(self._packet(step, protocol, inside[side], knows[side], sent))
            sent[side] += DATA_LEN if step.data else 0
            left = self.outer[side].receive(lambda seen: seen.protocol == protocol, wait_s=0.03)
            if left is not None and drawn[side] and found.sprays:
                knows[far] = left.sport  # the probe that hits
            # the peer's port may be any, so whatever comes of this protocol is it: nobody else speaks
            seen = self.probes[far].receive(lambda seen: seen.protocol == protocol)
            arrived.append(seen is not None)
            if seen is not None:
                knows[far] = seen.sport
        return arrived

    def _packet(self, step: Step, protocol: int, here: int, there: int, sent: list[int]) -> Packet:
        side, far = step.side, 1 - step.side
        src, dst = self.hosts[side].address, self.publics[far]
        ttl = 1 + len(self.nats[side]) if step.low else 64
        if protocol == UDP:
            return Packet(src, dst, UDP, here, there, ttl=ttl)
        seq = ISN[side] + (step.flags & SYN == 0) + sent[side]
        ack = ISN[far] + 1 + sent[far] if step.flags & ACK else 0
        return Packet(src, dst, TCP, here, there, step.flags, seq, ack, ttl, payload_len=DATA_LEN if step.data else 0)

    def _next(self, side: int, inside: int, protocol: int) -> int:
        """The public port that this side's next mapping gets, as far as the world can know: nobody's, if drawn."""
        kinds = [box.kind for box in boxes((self.lab.kind_a, self.lab.kind_b)[side])]
        if "random" in kinds:
            return 9
        if "sequential" not in kinds:
            return inside
        self.server.forget()
        self.probes[side].send(Packet(self.hosts[side].address, self.lab.server.address, UDP, next(_ports), 7))
        seen = self.server.receive(lambda seen: seen.dport == 7)
        assert seen is not None
        return seen.sport + 1


def _is_random(kind: str) -> bool:
    return any(box.kind == "random" for box in boxes(kind))


def playable(found: Found) -> bool:
    """Whether no probe must be aimed before the port is drawn that it must hit."""
    first = next(iter(found.steps or ()), None)
    return first is not None and not (found.sprays and not _is_random((found.a, found.b)[first.side]))


def pairs() -> list[tuple[str, str]]:
    """Those of every kind that can be played, or the few of every run."""
    if os.environ.get("PUNCHD_ORDERS") != "all":
        return PAIRS
    every = [(a, b) for a in KINDS for b in KINDS]
    return [pair for pair in every if any(playable(search(*pair, transport)) for transport in ("tcp", "udp"))]


@pytest.fixture(params=pairs(), ids="-".join)
def players(request: pytest.FixtureRequest) -> Iterator[Players]:
    with Lab(*request.param, echo=None) as lab:
        players = Players(lab)
        yield players
        players.close()


def test_the_order_found_passes_the_kernels_nats(players: Players) -> None:
    """A treasure map drawn from the model is worth as much as the kernel says it is."""
    lab = players.lab
    wanted, got = {}, {}
    for transport in ("tcp", "udp"):
        found = search(lab.kind_a, lab.kind_b, transport)
        if not playable(found):
            continue
        for nat, kind in ((lab.nat_a, lab.kind_a), (lab.nat_b, lab.kind_b)):
            if kind == "blacklist":  # what the TCP order left behind
                nat.nft("flush set ip lab blocked")
        wanted[transport, short(found)] = [step.arrives for step in found.steps or ()]
        got[transport, short(found)] = players.play(found)
    assert wanted
    assert wanted == got
