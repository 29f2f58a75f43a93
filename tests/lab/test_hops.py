"""The TTL that clears the own NATs, found by a real daemon from real routers' time-exceeded, and used by attempts.

It refuses to look into the machine: tests/core/test_ttl.py does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from duo import Talker, duo, initiate
from running import Daemon
from test_endpoint import punchctl

from punchd import client
from punchd.lab.endpoints import start_own
from punchd.lab.namespace import Namespace
from punchd.lab.topology import SERVER, Lab
from punchd.wire.descriptor import decode_descriptor, encode_descriptor
from punchd.words.addresses import Endpoint
from punchd.words.nat import Descriptor, Face, NatClass

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SILENCE = "table ip quiet {{ chain o {{ type filter hook output priority 0; icmp type time-exceeded {verdict}; }}; }}"


@pytest.mark.parametrize(
    ("kind", "ttl", "distance"),
    [
        ("open", 2, 4),
        ("firewall", 2, 4),
        ("linux", 2, 4),
        ("random", 2, 4),
        ("icmp-kills", 2, 4),
        ("cgn", 3, 5),
        ("random/linux", 3, 5),
        ("linux/linux/linux", 4, 6),
    ],
)
def test_ttl_found_clears_all_own_nats(kind: str, ttl: int, distance: int) -> None:
    """One to three layers, and none at all: the first hop may always hide a firewall. Peers read it too."""
    with Lab(kind, "open", echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            found = caller.endpoint(servers=servers)
    said = found.report["ttl"]
    assert (ttl, ttl, distance) == (said["clears"], said["least"], said["distance"])
    assert said["hops"][ttl - 1]["sender"] in ("203.0.113.1", "203.0.113.129")  # r1, by either kind's plan
    assert ttl == decode_descriptor(found.descriptor).ttl


def test_delay_and_loss_do_not_change_the_ttl() -> None:
    """Some hop's answer is lost: it is asked once more."""
    with Lab("cgn", "open", delay_ms=100, loss=0.02, echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            assert 3 == caller.endpoint(servers=servers, transport="udp").report["ttl"]["clears"]


def _silence(place: Namespace) -> None:
    place.nft(SILENCE.format(verdict="drop"))


def test_silent_hops_are_passed_by_and_silence_all_along_is_unknown() -> None:
    """Many routers say nothing; a guess would be worth less than the ladder."""
    with Lab("cgn", "open", echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            _silence(lab.nats_a[1])
            assert (3, 2) == _bounds(caller.endpoint(servers=servers, transport="udp"))
            _silence(lab.r1)
            assert (4, 2) == _bounds(caller.endpoint(servers=servers, transport="udp"))
            _silence(lab.r2)  # then the server's own answer bounds it
            assert (5, 2) == _bounds(caller.endpoint(servers=servers, transport="udp"))
            for place in (*lab.nats_a[1:], lab.r1, lab.r2):
                place.run(["nft", "delete", "table", "ip", "quiet"])
            far = lab.a
            far.nft("table ip deaf { chain i { type filter hook input priority 0; icmp type time-exceeded drop;"
                    " udp sport 3478 udp dport >= 32768 drop; }; }")  # fmt: skip
            found = caller.endpoint(servers=servers)
            assert (None, 2) == _bounds(found)
            assert decode_descriptor(found.descriptor).ttl is None


def _bounds(found: client.Found) -> tuple[int | None, int]:
    return found.report["ttl"]["clears"], found.report["ttl"]["least"]


def test_attempts_use_what_was_found_in_this_network(tmp_path: Path) -> None:
    """Behind a carrier's NAT the default of 2 opens nothing. What the command line says wins."""
    with Lab("cgn", "linux", echo=None) as lab:
        start_own(lab)
        options = ["--stun", SERVER, "--journal", str(tmp_path)]
        with Daemon(lab.a, *options) as daemon, Talker(daemon.path) as talker:
            assert 2 == _hole_ttl(talker, lab, tmp_path, "before")
            talker.ask({"id": "e", "call": "endpoint"})
            assert 3 == _hole_ttl(talker, lab, tmp_path, "after")
            lab.a.run(["ip", "neigh", "replace", "10.0.1.1", "lladdr", "02:00:00:00:ca:fe", "dev", "eth0"])
        with Daemon(lab.a, *options, "--hole-ttl", "5") as daemon, Talker(daemon.path) as talker:
            lab.a.run(["ip", "neigh", "replace", "10.0.1.1", "lladdr", "02:00:0a:00:01:01", "dev", "eth0"])
            talker.ask({"id": "e", "call": "endpoint"})
            assert 5 == _hole_ttl(talker, lab, tmp_path, "given")


def _hole_ttl(talker: Talker, lab: Lab, folder: Path, id_: str) -> int:
    """That of an attempt which nobody answers, by its journal."""
    known = set(folder.rglob("*"))
    request: dict[str, Any] = {"id": id_, "call": "initiate", "peer": lab.public_b, "self": lab.public_a}
    talker.ask(request | {"timeout_ms": 200})
    (journal,) = [path for path in set(folder.rglob("*")) - known if path.is_file()]
    head: dict[str, Any] = json.loads(journal.read_text(encoding="utf-8").splitlines()[0])
    return int(head["hole_ttl"])


@pytest.mark.parametrize(
    ("kind", "arrived"), [("linux", None), ("linux-reject", 5), ("cone", 5), ("cgn", None), ("open", None)]
)
def test_ttl_that_stays_short_of_a_peers_nats_is_found(kind: str, arrived: int | None) -> None:
    """r3 is the fourth hop from A whatever is behind it: a NAT, two, or the peer's own gateway."""
    with Lab("linux", kind, echo=None) as lab:
        servers = start_own(lab)
        a, b = Daemon(lab.a), Daemon(lab.b)
        with a, b, client.connect_blocking(a.path) as near, client.connect_blocking(b.path) as far:
            peer = far.keep_endpoint(servers=servers).found().descriptor
            found = near.endpoint(servers=servers, transport="udp", peer=peer).report["ttl"]
            assert (2, 4, arrived) == (found["clears"], found["peer"]["short"], found["peer"]["arrived"])
            shown = punchctl(a, "netcheck", "--server", servers[0], "--transport", "udp", "--peer", peer)
            assert f"hops stay short of {lab.public_b}" in shown


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.1.1", "255.255.255.255", None])
def test_descriptor_that_names_no_target_is_refused(peer: str | None) -> None:
    """A peer's word must not aim us at our own network."""
    with Lab("linux", "open", echo=None) as lab, Daemon(lab.a) as daemon, Talker(daemon.path) as talker:
        text = "ZTEB" if peer is None else encode_descriptor(
            Descriptor(peer, 1, udp=Face(22000, Endpoint(peer, 22000), NatClass()))
        )  # fmt: skip
        said = talker.ask({"id": "1", "call": "endpoint", "servers": [SERVER], "peer": text})
    assert ("bad-value" if peer is None else "target-refused") == said["code"]


def test_descriptor_that_names_a_victim_brings_it_a_handful_of_datagrams() -> None:
    """Whoever hands us a descriptor must not get a cannon with it; r1 sees all that leaves."""
    with Lab("linux", "open", echo=None) as lab:
        servers = start_own(lab)
        lab.r1.nft("table ip tally { counter seen { }; chain f { type filter hook prerouting priority -300;"
                   f" ip daddr {lab.public_b} counter name seen; }}; }}")  # fmt: skip
        victim = Descriptor("10.9.9.9", 1, tcp=Face(22000, Endpoint(lab.public_b, 9), NatClass()))
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            caller.endpoint(servers=servers, transport="udp", peer=encode_descriptor(victim))
        listing = lab.r1.run(["nft", "list", "counter", "ip", "tally", "seen"])
    (packets,) = re.findall(r"packets (\d+)", listing)
    assert 7 <= int(packets) <= 16  # of TTL 2 and more, and each at most twice


def test_netcheck_shows_the_ttl_and_the_hops() -> None:
    """A person sees who stands between the host and the Internet."""
    with Lab("cgn", "open", echo=None) as lab:
        start_own(lab)
        with Daemon(lab.a, "--stun", SERVER) as daemon:
            shown = punchctl(daemon, "netcheck")
            for words in ("hole TTL", "hops clear all NATs", "100.64.1.1", "203.0.113.1", f"{SERVER} (arrived)"):
                assert words in shown


def test_a_retry_primes_further_and_passes() -> None:
    """Behind a carrier's NAT that nobody has sounded, the first hole ends at home; a list has no other way."""
    with duo("cgn", "linux") as both:
        for status in ("error", "ok"):
            with Talker(both.a.path) as near, Talker(both.b.path) as far:
                near.say(initiate(both.lab, "tcp-simopen", timeout_ms=1000))
                far.say({"id": "1", "call": "respond", "notification": near.hear()["notification"], "timeout_ms": 1000})
                assert [status, status] == [near.final()["status"], far.final()["status"]]
