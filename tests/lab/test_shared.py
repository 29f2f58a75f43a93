"""Two peers behind the same NAT, or behind the same carrier's: what passes between them, in both halves of the lab.

It refuses what is known to differ: tcp-syni and tcp-nutss, since the kernel's hairpin page forgets the connection of a
packet that it held back, where a NAT by the book (and the model's) remembers it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from packets import MUTE, Probe
from street import TCP, UDP
from truth import differences, of_kernel, of_model

from punchd.lab.model import World, net_of
from punchd.lab.model_kinds import KINDS, Hairpin
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import Clock, Datagram, IcmpError, Path, Segment
from punchd.lab.model_net import Packet as Arrived
from punchd.lab.model_shared import Leg
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet
from punchd.words.events import ACK, RST, SYN

ROOT = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
HOME, LOOPING, CARRIER = "same:linux", "same:linux:hairpin=1", "linux/same:linux:hairpin=1"
PUBLIC = "203.0.113.2"

_ports = itertools.count(20_000)


class KernelYard:
    """Both hosts as raw packets."""

    def __init__(self, kind: str, lab: Lab) -> None:
        self.kind, self.lab, self.hosts = kind, lab, (lab.a, lab.b)
        self.probes, self.server = (Probe(lab.a), Probe(lab.b)), Probe(lab.server)
        for host in (*self.hosts, lab.server):
            host.nft(MUTE)

    def close(self) -> None:
        for probe in (*self.probes, self.server):
            probe.close()

    def send(self, side: int, protocol: int, src: int, dst: int, flags: int = 0, *, ttl: int = 64) -> Packet | None:
        """To the public address of both; what the other host receives of it."""
        return self.send_to(PUBLIC, self.probes[1 - side], side, protocol, src, dst, flags, ttl=ttl)

    def send_to(
        self, address: str, probe: Probe, side: int, protocol: int, src: int, dst: int, flags: int = 0, ttl: int = 64
    ) -> Packet | None:
        for each in (*self.probes, self.server):
            each.forget()
        seq, ack = (1000, 1001 if flags & ACK else 0) if protocol == TCP else (0, 0)
        self.probes[side].send(Packet(self.hosts[side].address, address, protocol, src, dst, flags, seq, ack, ttl))
        return probe.receive(lambda seen: seen.dport == dst and seen.icmp is None)

    def answer(self, side: int) -> tuple[int, tuple[int, int] | None] | None:
        """What came back for what this side has sent: flags, and an ICMP error's kind."""
        seen = self.probes[side].receive(lambda seen: True)
        return (seen.flags & (SYN | RST), seen.icmp) if seen else None


class _Host:
    """A modelled host that only looks."""

    def __init__(self) -> None:
        self.seen: list[Arrived] = []

    def receive(self, packet: Arrived, ttl: int) -> None:
        self.seen.append(packet)


class ModelYard:
    """The same in virtual time."""

    def __init__(self, kind: str) -> None:
        self.kind, self.clock, self.hosts = kind, Clock(1000.0), (_Host(), _Host())
        self.net = net_of(kind, kind, self.clock, Path(), random.Random(1), seed=1)
        self.net.join(*self.hosts)

    def send(self, side: int, protocol: int, src: int, dst: int, flags: int = 0, *, ttl: int = 64) -> Packet | None:
        """To the public address of both; what the other host receives of it."""
        for host in self.hosts:
            host.seen.clear()
        ack = 1001 if flags & ACK else 0
        sent = Segment(src, dst, flags, 1000, ack, 65535, ttl) if protocol == TCP else Datagram(src, dst, b"", ttl)
        self.net.leave(side, sent)
        self.clock.run(lambda: True, self.clock.now)
        seen = self.hosts[1 - side].seen
        if not seen or isinstance(seen[0], IcmpError):
            return None
        return Packet(PUBLIC, "", protocol, seen[0].src, seen[0].dst)

    def answer(self, side: int) -> tuple[int, tuple[int, int] | None] | None:
        """What came back for what this side has sent: flags, and an ICMP error's kind."""
        if not self.hosts[side].seen:
            return None
        seen = self.hosts[side].seen[0]
        if isinstance(seen, IcmpError):
            return 0, (seen.type, seen.code)
        return (seen.flags & (SYN | RST), None) if isinstance(seen, Segment) else (0, None)


Yard = KernelYard | ModelYard


@contextlib.contextmanager
def yard_of(half: str, kind: str) -> Iterator[Yard]:
    """For the length of a `with` block."""
    if half == "model":
        yield ModelYard(kind)
        return
    with kernel_yard(kind) as yard:
        yield yard


@contextlib.contextmanager
def kernel_yard(kind: str) -> Iterator[KernelYard]:
    """The kernel's, which has private addresses and a server, too."""
    with Lab(kind, kind, echo=None) as lab:
        yard = KernelYard(kind, lab)
        yield yard
        yard.close()


HALVES = pytest.mark.parametrize("half", [pytest.param("kernel", marks=ROOT), "model"])


@HALVES
@pytest.mark.parametrize("kind", [HOME, "linux/same:linux"])
def test_a_box_without_hairpinning_refuses_what_is_for_its_own_address(half: str, kind: str) -> None:
    """Linux's own stack answers, however short-lived the packet is: a primer meets its RST, too."""
    with yard_of(half, kind) as yard:
        for ttl in (64, 2):
            assert yard.send(0, TCP, next(_ports), next(_ports), SYN, ttl=ttl) is None
            assert (RST, None) == yard.answer(0)
            assert yard.send(0, UDP, next(_ports), next(_ports), ttl=ttl) is None
            assert (0, (3, 3)) == yard.answer(0)


@HALVES
@pytest.mark.parametrize("kind", [LOOPING, CARRIER])
@pytest.mark.parametrize(("protocol", "flags"), [(TCP, SYN), (TCP, ACK), (UDP, 0)])
def test_hairpinning_brings_in_only_what_both_have_asked_for(half: str, kind: str, protocol: int, flags: int) -> None:
    """The first packet is a stray like any other; then each looks to the other like an outsider (RFC 4787, REQ-9)."""
    a, b = next(_ports), next(_ports)
    with yard_of(half, kind) as yard:
        assert yard.send(0, protocol, a, b, flags) is None
        assert yard.answer(0) is None
        seen = yard.send(1, protocol, b, a, flags)
        assert seen is not None
        assert (PUBLIC, b, a) == (seen.src, seen.sport, seen.dport)
        answer = SYN | ACK if flags == SYN else flags
        back = yard.send(0, protocol, a, b, answer)
        assert back is not None
        assert (PUBLIC, a, b) == (back.src, back.sport, back.dport)
        assert yard.send(1, protocol, b, next(_ports), flags) is None


@HALVES
def test_a_primer_must_clear_the_shared_box_too(half: str) -> None:
    """Behind a carrier's box TTL 2 dies in it and opens nothing; TTL 3 opens, and dies at the neighbour's door."""
    for ttl, opens in ((2, False), (3, True)):
        with yard_of(half, CARRIER) as yard:
            a, b = next(_ports), next(_ports)
            assert yard.send(0, TCP, a, b, SYN, ttl=ttl) is None
            assert opens == (yard.send(1, TCP, b, a, SYN) is not None)


@HALVES
def test_a_primer_within_one_home_reaches_the_peer(half: str) -> None:
    """There is no place between the two where it could die: only private addresses or full range serve here."""
    with yard_of(half, LOOPING) as yard:
        a, b = next(_ports), next(_ports)
        yard.send(0, TCP, a, b, SYN, ttl=2)
        assert yard.send(1, TCP, b, a, SYN, ttl=2) is not None


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("kind", [HOME, LOOPING])
def test_private_addresses_reach_each_other_past_the_nat(kind: str) -> None:
    """What private candidates are for: the bridge joins both hosts, and nobody translates."""
    with kernel_yard(kind) as yard:
        seen = yard.send_to(yard.hosts[1].address, yard.probes[1], 0, TCP, 5, 6, SYN)
        assert seen is not None
        assert ("10.0.1.2", "10.0.1.3", 5) == (seen.src, seen.dst, seen.sport)


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_two_customers_of_a_carrier_reach_each_others_routers_and_no_further() -> None:
    """100.64/10 is a net like any other: a home's own NAT guards it from neighbours as from the world."""
    with kernel_yard(CARRIER) as yard:
        assert yard.send_to("100.64.1.3", yard.probes[1], 0, UDP, 5, 6) is None
        seen = yard.send_to("100.64.1.2", yard.probes[0], 1, UDP, 6, 5)
        assert seen is not None
        assert ("100.64.1.3", 6) == (seen.src, seen.sport)


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("kind", [HOME, "linux/same:linux"])
def test_the_world_sees_one_address_and_a_taken_port_is_another(kind: str) -> None:
    """Two hosts that chose the same port: the second is moved, which is why `endpoint` asks."""
    port = next(_ports)
    with kernel_yard(kind) as yard:
        seen = [yard.send_to("192.0.2.10", yard.server, side, UDP, port, 7) for side in (0, 1)]
    assert [PUBLIC, PUBLIC] == [each.src for each in seen if each]
    assert port == (seen[0] and seen[0].sport) != (seen[1] and seen[1].sport)


def test_a_modelled_box_moves_a_taken_port_too() -> None:
    """Axis 2: preserve, else another; and what comes back to it finds its own host."""
    nat = Nat(KINDS["linux"], PUBLIC)
    legs = [Leg(nat, side, Hairpin.EXTERNAL) for side in (0, 1)]
    left = [leg.outbound(Datagram(5, 7, b"", 64), 0.0, "192.0.2.10") for leg in legs]
    ports = [each.src for each in left if isinstance(each, Datagram)]
    assert 5 == ports[0] != ports[1]
    for side, port in enumerate(ports):
        back = [leg.inbound(Datagram(7, port, b"", 64), 1.0, "192.0.2.10") for leg in legs]
        assert [side == other for other in (0, 1)] == [each is not None for each in back]
        heard = back[side]
        assert isinstance(heard, Datagram)
        assert 5 == heard.dst


@pytest.mark.parametrize("hairpin", list(Hairpin))
def test_what_hairpinning_does_to_a_punch(hairpin: Hairpin) -> None:
    """Only packets that come back from outside serve a socket that is connected to the outside."""
    box = replace(KINDS["linux"], hairpin=hairpin)
    result = World(box, box, techniques=["tcp-simopen"], shared=True, timeout_s=1.0).run()
    assert (hairpin is Hairpin.EXTERNAL) == result.ok
    answered = "reset-by-peer-side" if hairpin is Hairpin.ANSWERED else "nothing-heard"
    assert ("tcp-simopen" if result.ok else answered) == result.a.code


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("kind", [HOME, LOOPING, CARRIER, "linux/same:linux", "linux-reject/same:linux:hairpin=1"])
def test_model_and_kernel_agree_behind_a_shared_box(kind: str) -> None:
    """The same techniques connect, and failures bear the same codes."""
    assert [] == differences(kind, kind, ("tcp-simopen", "tcp-midstream", "tcp-direct", "udp"))


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_punchd_punches_within_a_carriers_net_with_the_ttl_that_clears_it() -> None:
    """TTL 3: its own home and the carrier's box."""
    wanted = dict.fromkeys(("tcp-simopen", "tcp-midstream", "udp"), True)
    got = {cell.technique: cell.ok == cell.runs for cell in of_kernel(CARRIER, CARRIER, wanted, hole_ttl=3)}
    assert wanted == got
    assert wanted == {technique: of_model(CARRIER, CARRIER, technique, hole_ttl=3).ok == 1 for technique in wanted}
