"""Each verdict, brought about by packets: what a host's own rules, a NAT, a router or a strange port did is said.

It refuses to write evidence down by hand (tests/core/test_verdict.py does): kernels drop, reset and complain here.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from duo import Duo, Talker, duo, initiate
from packets import MUTE, Probe
from running import Daemon

from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet
from punchd.wire.peer import encode_notification
from punchd.words.events import SYN, SYN_ACK
from punchd.words.notification import Notification, Offer

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.needs("ring", "raw", "repair", "queue", "rules")]

IN, OUT = "type filter hook input priority 0", "type filter hook output priority 0"
SHORT_MS = 700


@pytest.fixture(scope="module", name="both")
def _both() -> Iterator[Duo]:
    with duo("linux", "linux") as made:
        yield made


@contextlib.contextmanager
def rule(place: Namespace, text: str) -> Iterator[None]:
    """One rule, for the length of a `with` block."""
    place.nft(f"table ip t {{ chain c {{ {text}; }}; }}")
    try:
        yield
    finally:
        place.nft("delete table ip t")


def verdicts(both: Duo, technique: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What A and B have to say of one short attempt."""
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(initiate(both.lab, technique, timeout_ms=SHORT_MS))
        while (heard := near.hear()).get("stage") == "failed":
            pass
        if heard["status"] == "error":
            return heard, {}
        far.say({"id": "1", "call": "respond", "notification": heard["notification"], "timeout_ms": SHORT_MS})
        return near.final(), far.final()


@pytest.mark.parametrize(
    ("technique", "code", "action"),
    [
        ("tcp-simopen", "syn-not-captured", "drop"),  # connect() says nothing of it
        ("tcp-syni", "syn-not-captured", "drop"),
        ("tcp-midstream", "blocked-outgoing", "drop"),
        ("udp", "blocked-outgoing", "drop"),
        ("tcp-simopen", "blocked-outgoing", "reject with icmp admin-prohibited"),
        ("udp", "blocked-outgoing", "reject with icmp admin-prohibited"),
    ],
)
def test_own_rule_that_keeps_packets_from_leaving_is_named(both: Duo, technique: str, code: str, action: str) -> None:
    """The commonest fault, and one that no packet outside can show."""
    with rule(both.lab.a, f"{OUT}; th sport 21000-31999 {action}"):
        said, _ = verdicts(both, technique)
    assert code == said["code"]
    assert f"table ip t, chain c: th sport 21000-31999 {action} (handle 2)" == said["cause"][technique]["rule"]
    assert said["cause"][technique]["rule"] in said["message"]
    assert said["advice"].startswith("nft insert rule ip t c")


def test_its_mend_lets_the_next_attempt_through(both: Duo) -> None:
    """The line in the advice is one to be copied."""
    with rule(both.lab.a, f"{OUT}; policy drop"):
        said, _ = verdicts(both, "tcp-simopen")
        both.lab.a.run(said["advice"].split())
        assert ["ok", "ok"] == [said["status"] for said in verdicts(both, "tcp-simopen")]


@pytest.mark.parametrize(("side", "flags"), [("a", "syn / syn,ack"), ("b", "syn,ack / syn,ack")])
def test_own_rule_that_keeps_packets_from_arriving_is_named(both: Duo, side: str, flags: str) -> None:
    """The ring sees what comes before any rule does; that the kernel does not react tells the rest."""
    with rule(getattr(both.lab, side), f"{IN}; tcp flags {flags} drop"):
        said = verdicts(both, "tcp-simopen")["ab".index(side)]
    assert "blocked-incoming" == said["code"]
    assert f"tcp flags {flags} drop" in said["cause"]["tcp-simopen"]["rule"]


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_deaf_made_socket_is_nobodys_success(both: Duo, side: str) -> None:
    """The ring hears what a rule then drops: such a socket must not be handed over."""
    with rule(getattr(both.lab, side), f"{IN}; tcp dport 21000-31999 drop"):
        said = verdicts(both, "tcp-midstream")["ab".index(side)]
    assert "blocked-incoming" == said["code"]
    assert "tcp dport 21000-31999 drop" in said["cause"]["tcp-midstream"]["rule"]


def test_rule_of_somebody_else_is_not_named(both: Duo) -> None:
    """A host with rules whose packets die elsewhere is told so."""
    with rule(both.lab.a, f"{IN}; tcp dport 22 drop"), rule(both.lab.r2, "type filter hook forward priority 0; drop"):
        said, _ = verdicts(both, "tcp-simopen")
    assert "nothing-heard" == said["code"]
    assert "rule" not in said["cause"]["tcp-simopen"]


@pytest.mark.parametrize("technique", ["tcp-midstream", "tcp-simopen", "udp"])
def test_where_our_primer_died_is_told_though_nobody_was_woken_for_it(both: Duo, technique: str) -> None:
    """The hop tells whether it got past the own NAT; it is asked for only when an attempt fails."""
    with rule(both.lab.r2, "type filter hook forward priority 0; drop"):
        said, _ = verdicts(both, technique)
    assert "nothing-heard" == said["code"]
    icmp = said["cause"][technique]["icmp"]
    assert (11, 0, f"time exceeded from {icmp['sender']}") == (icmp["type"], icmp["code"], icmp["words"])


def test_reset_is_told_with_its_ttl_and_distance() -> None:
    """By its TTL one sees that it was the peer's NAT: its host is a hop further away."""
    with duo("linux-reject", "linux") as both:
        _, said = verdicts(both, "tcp-direct")
    cause = said["cause"]["tcp-direct"]
    assert ("reset-by-peer-side", 60, 4) == (said["code"], cause["rst_ttl"], cause["rst_hops"])
    assert "RST with TTL 60: its sender is 4 hops away" in said["message"]
    assert cause["own_syn_left"]
    assert not cause["peer_heard"]


def test_router_that_forbids_is_named_by_its_address(both: Duo) -> None:
    """Kind and sender in words: the reader knows whom to ask."""
    with rule(both.lab.r2, "type filter hook forward priority 0; reject with icmp admin-prohibited"):
        _, said = verdicts(both, "tcp-simopen")
    assert "refused-by-icmp" == said["code"]
    icmp = said["cause"]["tcp-simopen"]["icmp"]
    assert (3, 13) == (icmp["type"], icmp["code"])
    assert f"administratively prohibited from {icmp['sender']}" == icmp["words"]
    assert icmp["words"] in said["message"]
    assert icmp["sender"].startswith("198.18.")


def test_death_of_a_primer_is_told_by_the_router_that_saw_it(both: Duo) -> None:
    """It is as it should be, and shows how far a hole reaches."""
    with rule(both.lab.a, f"{IN}; tcp flags syn drop"):
        said, _ = verdicts(both, "tcp-simopen")
    assert said["cause"]["tcp-simopen"]["icmp"]["words"].startswith("time exceeded from ")


@pytest.mark.parametrize("flags", [SYN, SYN_ACK])
def test_answer_from_another_port_is_told_with_the_port(flags: int) -> None:
    """What a peer behind a NAT that changes ports looks like: its address is right, its port is not."""
    with alone() as (lab, talker, offer):
        probe = Probe(lab.a)
        packet = Packet(
            lab.public_a, lab.public_b, socket.IPPROTO_TCP, 40000, offer.responder_port, flags, 5000, 0, 64
        )  # fmt: skip
        for _ in range(3):
            probe.send(packet)
        said = talker.final()
        probe.close()
    assert "from-other-port" == said["code"]
    assert 40000 == said["cause"]["tcp-simopen"]["other_port"]
    assert f"port 40000, not {offer.initiator_port}" in said["message"]


def test_silence_is_told_with_what_left() -> None:
    """The own SYN left and nothing came: the rest is the peer's, or the path's."""
    with alone() as (_, talker, _):
        said = talker.final()
    assert "nothing-heard" == said["code"]
    cause = said["cause"]["tcp-simopen"]
    assert (True, False, False) == (cause["own_syn_left"], cause["peer_syn_came"], cause["peer_syn_ack_came"])
    assert not {"rst_ttl", "icmp", "other_port", "rule"} & cause.keys()


@contextlib.contextmanager
def alone() -> Iterator[tuple[Lab, Talker, Offer]]:
    """B responds to an A that is mute: no punchd, and a kernel that answers nothing."""
    offer = Offer("tcp-simopen", 22001, 23001)
    with Lab("open", "open", echo=None) as lab:
        lab.a.nft(MUTE)
        text = encode_notification(
            Notification(bytes(range(16)), lab.public_a, lab.public_b, "tcp", (offer,), False, False)
        )
        with Daemon(lab.b) as daemon, Talker(daemon.path) as talker:
            talker.say({"id": "1", "call": "respond", "notification": text, "timeout_ms": SHORT_MS})
            time.sleep(0.1)  # strays count from when the pair is open
            yield lab, talker, offer
