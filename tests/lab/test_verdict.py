"""Each verdict, brought about by packets: what a host's own rules, a NAT, a router or a strange port did is said.

It refuses to write evidence down by hand (tests/core/test_verdict.py does): kernels drop, reset and complain here.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from duo import Duo, Talker, duo, initiate
from packets import MUTE, Probe
from running import BENT, Daemon

from punchd import client
from punchd.lab.endpoints import start_own
from punchd.lab.namespace import Namespace
from punchd.lab.topology import Lab
from punchd.lab.wire import Packet
from punchd.wire.peer import encode_notification
from punchd.words.errors import Code
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


def verdicts(both: Duo, technique: str, *, timeout_ms: int = SHORT_MS) -> tuple[dict[str, Any], dict[str, Any]]:
    """What A and B have to say of one short attempt."""
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(initiate(both.lab, technique, timeout_ms=timeout_ms))
        while (heard := near.hear()).get("stage") == "failed":
            pass
        if heard["status"] == "error":
            return heard, {}
        far.say({"id": "1", "call": "respond", "notification": heard["notification"], "timeout_ms": timeout_ms})
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


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("policy", ["udp dport 21000-31999 drop", "policy drop"])
def test_own_rule_that_drops_datagrams_is_named(both: Duo, side: str, policy: str) -> None:
    """No ring sees them come, and silence has many causes: the rules themselves tell."""
    with rule(getattr(both.lab, side), f"{IN}; {policy}"):
        said = verdicts(both, "udp")["ab".index(side)]
    assert "blocked-incoming" == said["code"]
    assert said["message"].startswith("a rule of this host drops what the peer sends, it is table ip t, chain c: ")
    assert policy in said["cause"]["udp"]["rule"]
    assert said["advice"].startswith("nft insert rule ip t c udp dport 21000-31999")


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("kinds", [("random", "linux"), ("linux", "random")])
def test_a_deaf_socket_of_a_fan_is_nobodys_success(kinds: tuple[str, str], side: str) -> None:
    """It is made after the segment that found its lane; what follows may be dropped by a rule, on either side."""
    deafening = "tcp dport 21000-31999 drop"
    with duo(*kinds) as both, rule(getattr(both.lab, side), f"{IN}; {deafening}"):
        said = verdicts(both, "tcp-birthday", timeout_ms=5000)["ab".index(side)]
    assert "blocked-incoming" == said["code"]
    assert any(deafening in cause.get("rule", "") for cause in said["cause"].values())
    assert f"it is table ip t, chain c: {deafening}" in said["message"]


def test_rule_of_somebody_else_is_not_named(both: Duo) -> None:
    """A host with rules whose packets die elsewhere is told so."""
    with rule(both.lab.a, f"{IN}; tcp dport 22 drop"), rule(both.lab.r2, "type filter hook forward priority 0; drop"):
        said, _ = verdicts(both, "tcp-simopen")
    assert "nothing-heard" == said["code"]
    assert "rule" not in said["cause"]["tcp-simopen"]


@pytest.mark.parametrize("technique", ["tcp-midstream", "tcp-simopen", "udp"])
def test_where_our_primer_died_is_told_though_nobody_was_woken_for_it(technique: str) -> None:
    """The hop tells whether it got past the own NAT; it is asked for only when an attempt fails."""
    with (
        duo("linux", "linux") as both,  # of their own: a retry primes further, and this rule lets nothing die there
        rule(both.lab.r2, "type filter hook forward priority 0; drop"),
    ):
        said, _ = verdicts(both, technique)
    assert "nothing-heard" == said["code"]
    icmp = said["cause"][technique]["icmp"]
    assert (11, 0, f"time exceeded from {icmp['sender']}") == (icmp["type"], icmp["code"], icmp["words"])


def test_datagrams_that_die_elsewhere_are_laid_at_no_rule(both: Duo) -> None:
    """Whoever mends what is not broken loses an hour."""
    with rule(both.lab.a, f"{IN}; udp dport 53 drop"), rule(both.lab.r2, "type filter hook forward priority 0; drop"):
        said, _ = verdicts(both, "udp")
    assert "nothing-heard" == said["code"]
    assert "rule" not in said["cause"]["udp"]
    assert "ask over there" in said["advice"]


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
    segment = "SYN" if flags == SYN else "SYN-ACK"
    assert f"its {segment} came from port 40000, not {offer.initiator_port}" in said["message"]


def test_silence_is_told_with_what_left() -> None:
    """The own SYN left and nothing came: the rest is the peer's, or the path's."""
    with alone() as (_, talker, _):
        said = talker.final()
    assert "nothing-heard" == said["code"]
    cause = said["cause"]["tcp-simopen"]
    assert (True, False, False) == (cause["own_syn_left"], cause["peer_syn_came"], cause["peer_syn_ack_came"])
    assert not {"rst_ttl", "icmp", "other_port", "rule"} & cause.keys()
    assert "nothing came from the peer (our own SYN left); tried tcp-simopen" == said["message"]
    assert "`self`" in said["advice"]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("kinds", [("random", "random"), ("random", "sequential"), ("sequential", "random")])
def test_two_nats_that_change_ports_are_named_on_both_sides(kinds: tuple[str, str], transport: str) -> None:
    """The only cells that may fail: no retry, no rule and no technique helps, and the reader must not look for one."""
    with duo(*kinds) as both, Talker(both.a.path) as near, Talker(both.b.path) as far:
        servers = start_own(both.lab)
        with client.connect_blocking(both.a.path) as one, client.connect_blocking(both.b.path) as other:
            own, peer = one.endpoint(servers=servers).descriptor, other.endpoint(servers=servers).descriptor
        near.say({"id": "1", "call": "initiate", "peer": peer, "self": own, "transport": transport, "timeout_ms": 1500})
        text = near.hear()["notification"]
        far.say({"id": "1", "call": "respond", "notification": text, "timeout_ms": 1500})
        said = near.final(), far.final()
    for side in said:
        assert "both-ports-change" == side["code"], side
        assert "both sides' NATs give each connection another port" in side["message"]
        assert f"tried {transport}-birthday" in side["message"]
        assert "forward one of the punch range" in side["advice"]


# -- codes that no packet of the peer's brings about ------------------------------------------------------------------


def test_next_hop_that_does_not_answer_is_laid_at_no_rule(both: Duo) -> None:
    """To the socket it looks as a `reject` of this host's does; without a rule, `ip neigh` shows who is silent."""
    place = both.lab.a
    place.run(["sysctl", "-qw", "net.ipv4.neigh.eth0.retrans_time_ms=100"])
    place.run(["ip", "route", "add", "192.0.2.67/32", "dev", "eth0"])
    with Talker(both.a.path) as near:
        said = near.ask(initiate(both.lab, "tcp-simopen") | {"peer": "192.0.2.67"})
    assert "socket-lost" == said["code"] == said["cause"]["tcp-simopen"]["code"]
    assert "the kernel of this host gave up the socket (No route to host); tried tcp-simopen" == said["message"]
    assert "ip neigh" in said["advice"]


def test_host_without_a_route_is_told_the_command_that_shows_it(both: Duo) -> None:
    """Nothing has left, and nothing can."""
    with Talker(both.a.path) as near:
        both.lab.a.run(["ip", "route", "add", "unreachable", "192.0.2.66/32"])
        said = near.ask(initiate(both.lab, "tcp-simopen") | {"peer": "192.0.2.66"})
    assert "host-refused" == said["code"]
    assert "this host has no route to 192.0.2.66" in said["message"]
    assert "ip route get" in said["advice"]


def test_host_without_capabilities_says_what_the_technique_lacks(both: Duo) -> None:
    """And where the line is that grants it; the peer of such a host hears it by name, too."""
    unprivileged = [sys.executable, "-m", "punchd.lab.unprivileged", "none"]
    with Daemon(both.lab.a, command=unprivileged) as poor, Talker(poor.path) as near, Talker(both.b.path) as far:
        said = near.ask(initiate(both.lab, "tcp-midstream"))
        assert ("not-capable", {"tcp-midstream": "raw, repair, ring"}) == (said["code"], said["cause"]["missing"])
        assert "ping" in said["advice"]
        far.say({
            "id": "1", "call": "initiate", "techniques": ["tcp-midstream"], "timeout_ms": SHORT_MS,
            "peer": both.lab.public_a, "self": both.lab.public_b,
        })  # fmt: skip
        text = far.hear()["notification"]
        said = near.ask({"id": "2", "call": "respond", "notification": text})
        assert "no-common-technique" == said["code"]
        assert "the peer offers tcp-midstream" in said["message"]
        assert "nothing-heard" == far.final()["code"]


def test_time_that_is_up_before_the_notification_is_called_so(both: Duo) -> None:
    """A fan of 1024 takes a quarter of a second to prime; nobody was told of it, so nobody was silent."""
    with Talker(both.a.path) as near:
        said = near.ask(initiate(both.lab, "tcp-birthday", timeout_ms=20))
    assert "time-up" == said["code"]
    assert "before the notification was ready" in said["message"]
    assert "give a larger timeout_ms" == said["advice"]


def test_a_bug_of_ours_ends_one_attempt_and_says_whose_it_is(both: Duo) -> None:
    """Others go on; and the log has the trace that a report needs, on which these tests' own Daemon stumbles."""
    daemon = Daemon(both.lab.a, command=[*BENT, "buggy"]).__enter__()
    with Talker(daemon.path) as near:
        said = near.ask(initiate(both.lab, "tcp-simopen"))
        assert "internal" == said["code"]
        assert "report" in said["advice"]
        assert "ok" == near.ask({"id": "2", "call": "ping"})["status"]
    with pytest.raises(AssertionError, match="bent on purpose"):
        daemon.__exit__(None, None, None)


def test_every_code_is_brought_about_by_some_test_of_the_lab() -> None:
    """A code that nothing produces is a promise that nobody keeps."""
    told = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_*.py")))
    assert [] == [code for code in Code if f'"{code}"' not in told]


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
