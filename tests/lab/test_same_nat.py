"""Peers behind one NAT, by real daemons with their default options: through it where it hairpins, past it where not.
It refuses to look at single packets of the NATs (tests/lab/test_shared.py does), save at those that a liar provokes.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from duo import Duo, duo
from packets import MUTE, Probe
from running import Daemon

from punchd import client
from punchd.lab import endpoints
from punchd.lab.model import World
from punchd.lab.model_kinds import KINDS, Hairpin
from punchd.lab.pair import Pair
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet
from punchd.wire.peer import encode_notification
from punchd.words.addresses import PUNCH_PORTS
from punchd.words.events import ACK, RST, SYN
from punchd.words.notification import Notification, Offer

PUBLIC, NEIGHBOUR = "203.0.113.2", "10.0.1.3"
RUNS = 3


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(
    "kind",
    ["same:linux", "same:linux:hairpin=1", "same:random", "same:cone", "same:cone:hairpin=1",
     "linux/same:linux:hairpin=1", "linux/same:cone:hairpin=1"],
)  # fmt: skip
def test_peers_behind_one_nat_connect(kind: str, transport: str) -> None:
    """Whether it turns packets around or not, as long as there is a way at all."""
    with Lab(kind, kind, echo=None) as lab, Pair(lab) as pair:
        result = pair.run("auto", runs=RUNS, transport=transport, timeout_ms=5000, endpoint="run")
    assert (RUNS, {}) == (result.ok, dict(result.messages))


@pytest.mark.lab
@pytest.mark.slow
def test_firewalls_on_both_hosts_let_neighbours_meet() -> None:
    """Each knows connections of its own alone, like any NAT."""
    with Lab("same:linux", "same:linux", hosts_conntrack=True, echo=None) as lab, Pair(lab) as pair:
        results = [
            pair.run("auto", runs=RUNS, transport=transport, timeout_ms=5000, endpoint="run")
            for transport in ("tcp", "udp")
        ]
    assert [RUNS, RUNS] == [result.ok for result in results]


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [("same:linux", "no"), ("linux/same:linux", "run")],
    ids=["addresses alone", "two homes of a carrier"],
)
def test_where_nothing_can_pass_the_verdict_says_that_the_nat_is_shared(kind: str, endpoint: str) -> None:
    """Two homes behind one carrier need its hairpin; a bare address says nothing of where the peer is at home."""
    with Lab(kind, kind, echo=None) as lab, Pair(lab) as pair:
        result = pair.run("auto", runs=1, timeout_ms=1500, endpoint=endpoint)
    assert 0 == result.ok
    for side in result.last:
        assert f"behind the same NAT, {PUBLIC}, which brings nothing back inside" in side["message"]


@pytest.mark.lab
@pytest.mark.slow
def test_a_liar_reaches_no_service_of_a_neighbour() -> None:
    """Whoever knows our public address can name a neighbour's: it sees a few ACKs and RSTs of no connection, no SYN."""
    with Lab("same:linux", "same:linux", echo=None) as lab, Daemon(lab.a) as daemon:
        lab.b.nft(MUTE)  # a neighbour that is silent is fired at longest
        stun = endpoints.start_own(lab)
        seen = _provoked(lab, daemon, stun[0], "tcp-midstream")
        assert {ACK, RST} >= {packet.flags & (SYN | ACK | RST) for packet in seen}
        assert {True} == {packet.dport in PUNCH_PORTS for packet in seen}
        assert 1 <= len(seen) <= 12
        assert 1 <= len(_provoked(lab, daemon, stun[0], "udp")) <= 12
        assert [] == _provoked(lab, daemon, stun[0], "tcp-simopen")
        assert [] == _provoked(lab, daemon, stun[0], "tcp-direct")


def _provoked(lab: Lab, daemon: Daemon, stun: str, technique: str) -> list[Packet]:
    """What the neighbour sees of a respond to a notification that says that it is the initiator."""
    offers = (Offer(technique, 22001, 23001, at=1), Offer(technique, 22002, 23002))
    transport: Any = technique.partition("-")[0]
    text = encode_notification(Notification(_nonce(), PUBLIC, PUBLIC, transport, offers, others=(NEIGHBOUR,)))
    probe, seen = Probe(lab.b), list[Packet]()
    with client.connect_blocking(daemon.path) as punchd:
        punchd.endpoint(servers=[stun])
        probe.forget()
        with pytest.raises(client.PunchFailed):
            punchd.respond(text, timeout_ms=3000).result()
    while (packet := probe.receive(lambda packet: packet.src == lab.a.address and packet.icmp is None)) is not None:
        seen.append(packet)
    probe.close()
    return seen


_nonces = iter(range(1, 100))


def _nonce() -> bytes:
    return bytes(15) + bytes([next(_nonces)])


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_second_entry_of_a_list_connects_where_the_first_is_wrong(transport: Any) -> None:
    """A peer with two lines, or with an address of yesterday."""

    async def punched(both: Duo) -> str:
        async with client.connect(both.a.path) as near, client.connect(both.b.path) as far:
            asking = await near.initiate(
                peer=["198.51.100.99", both.lab.public_b], self_=[both.lab.public_a], transport=transport
            )
            answering = await far.respond(await asking.notification())
            one, other = await asyncio.gather(asking.result(), answering.result())
            one.socket.close()
            other.socket.close()
            return one.remote

    with duo("linux", "linux") as both:
        assert both.lab.public_b == asyncio.run(punched(both)).partition(":")[0]


# A SYN that meets a RST of the shared box, a box that blocks its own host, and ports that are drawn or counted twice
# over: for these there is the way past the NAT alone.
NEED_PRIVATE = {("tcp", "linux-reject"), ("tcp", "blacklist"), ("udp", "blacklist"), ("tcp", "random"),
                ("udp", "random"), ("tcp", "sequential"), ("udp", "sequential")}  # fmt: skip


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("kind", sorted(name for name, kind in KINDS.items() if kind.translates))
def test_auto_passes_a_shared_box_that_hairpins(kind: str, transport: str) -> None:
    """By public addresses, in one try, where the first packet of either is a stray like any other."""
    box = _hairpinning(kind)
    result = World(box, box, transport=transport, shared=True, delay_ms=1, side_delay_ms=20).run()
    assert ((transport, kind) not in NEED_PRIVATE) == result.ok


def _hairpinning(kind: str) -> Any:
    return replace(KINDS[kind], hairpin=Hairpin.EXTERNAL)
