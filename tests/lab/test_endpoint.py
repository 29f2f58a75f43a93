"""The `endpoint` call by a real daemon, a real coturn and our own server: what is found is what the kind's page says.

It refuses to look into the machine: tests/core/test_probe.py does. Each kind is asked over UDP and TCP at once.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from duo import Talker, duo
from running import BENT, NOBODY, Daemon, held_sockets

from punchd import client
from punchd.core.techniques import TECHNIQUES
from punchd.lab.endpoints import SECOND, start_coturn, start_own
from punchd.lab.namespace import Namespace
from punchd.lab.pages import KINDS
from punchd.lab.pair import DAEMON
from punchd.lab.topology import SERVER, Lab
from punchd.wire.descriptor import decode_descriptor
from punchd.wire.stun import decode_answer, encode_request, message_len
from punchd.words.addresses import Endpoint
from punchd.words.probing import Change

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

INDEPENDENT, STRICTEST = "endpoint-independent", "address-and-port-dependent"
KEEPING = (INDEPENDENT, STRICTEST, "preserving", 0)
LAX = (None, None)  # who is let in sends no strays
DROPS = (True, True)
# what becomes of strays, and whether who sent them is heard since: over both transports by our own server
STRAYS = {
    "open": LAX, "cone": LAX, "firewall": DROPS, "linux": DROPS, "linux-liberal": DROPS, "linux-noloose": DROPS,
    "linux-reject": (False, True), "linux-synfilter": DROPS, "untracked": DROPS, "cgn": DROPS, "icmp-kills": DROPS,
    "rst-kills": DROPS, "random": DROPS, "sequential": DROPS, "blacklist": (False, False),
}  # fmt: skip
# mapping, filtering (over TCP our own server alone can tell), allocation, step: in the words of the kinds' pages
PAGES = {
    "open": (INDEPENDENT, INDEPENDENT, "preserving", 0),
    "cone": (INDEPENDENT, INDEPENDENT, "preserving", 0),
    "linux": KEEPING,
    "linux-reject": KEEPING,
    "linux-synfilter": KEEPING,
    "untracked": KEEPING,
    "cgn": KEEPING,
    "random": (STRICTEST, STRICTEST, "random", 0),
    "sequential": (STRICTEST, STRICTEST, "sequential", 1),
    "sequential:step=2,foreign=20": (STRICTEST, STRICTEST, "sequential", 2),
    "sequential:step=-1": (STRICTEST, STRICTEST, "sequential", -1),
}
UNPRIVILEGED = (sys.executable, "-m", "punchd.lab.unprivileged", "none")
OWN_PORTS = (3488, 3489)  # beside coturn's


@pytest.mark.parametrize("kind", PAGES)
def test_class_found_is_what_the_kinds_page_says(kind: str) -> None:
    """By coturn and by our own server, which share no code, over both transports."""
    with Lab(kind, "open", echo=None) as lab:
        coturn, own = start_coturn(lab), start_own(lab, ports=OWN_PORTS)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            for servers in (coturn, own):
                report = caller.endpoint(servers=servers).report
                for transport in ("udp", "tcp"):
                    found = report[transport]
                    mapping, filtering, allocation, step = PAGES[kind]
                    filtering = filtering if transport == "udp" or servers == own else "unknown"
                    assert (mapping, filtering, allocation, step) == (
                        found["mapping"], found["filtering"], found["allocation"], found["step"],
                    ), (transport, servers, found)  # fmt: skip
                    assert (lab.public_a != lab.a.address) == found["translated"]
                    assert lab.public_a == found["public"].partition(":")[0]
            assert [] == held_sockets(lab.a)


@pytest.mark.parametrize("kind", STRAYS)
def test_what_becomes_of_strays_is_what_the_kinds_page_says(kind: str) -> None:
    """By our own server, over both transports; the descriptor carries it. Coturn hears of no ICMP error."""
    assert set(KINDS) == set(STRAYS)
    with Lab(kind, "open", echo=None) as lab:
        coturn, own = start_coturn(lab), start_own(lab, ports=OWN_PORTS)
        drops, forgives = STRAYS[kind]
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            found = caller.endpoint(servers=own)
            for transport in ("udp", "tcp"):
                said = found.report[transport]
                assert (drops, forgives) == (said["drops_strays"], said["forgives"]), (transport, said)
            descriptor = decode_descriptor(found.descriptor)
            for face in (descriptor.tcp, descriptor.udp):
                assert face is not None
                assert (drops, forgives) == (face.nat.drops_strays, face.nat.forgives)
            if kind != "blacklist":  # which hears nothing of that address for a while
                said = caller.endpoint(servers=coturn, transport="udp").report["udp"]
                assert (None, forgives) == (said["drops_strays"], said["forgives"])
            assert [] == held_sockets(lab.a)


def test_class_is_right_on_a_slow_and_lossy_path() -> None:
    """100 ms one way and 2 % loss: what is lost costs time, not truth."""
    with Lab("linux", "open", delay_ms=100, loss=0.02, echo=None) as lab:
        servers = start_coturn(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            for _ in range(2):
                report = caller.endpoint(servers=servers, transport="udp", timeout_ms=10000).report
                assert (INDEPENDENT, "preserving") == (report["udp"]["mapping"], report["udp"]["allocation"])
                assert report["udp"]["filtering"] == STRICTEST
                assert report["udp"]["forgives"]


def test_a_nat_that_blocks_is_known_over_both_transports_on_a_slow_path() -> None:
    """UDP's strays are there before TCP has spoken to the second address, and get it blocked."""
    with Lab("blacklist", "open", delay_ms=200, echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            report = caller.endpoint(servers=servers).report
    for transport in ("udp", "tcp"):
        assert (False, False) == (report[transport]["drops_strays"], report[transport]["forgives"])


@pytest.mark.parametrize("kind", ["random", "sequential"])
def test_descriptor_says_what_the_report_says(kind: str) -> None:
    """Peers get the one, people the other. Of a NAT that counts, peers get where its counter is now, in two samples."""
    with Lab(kind, "open", echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            found = caller.endpoint(servers=servers)
    descriptor = decode_descriptor(found.descriptor)
    assert lab.a.address == descriptor.host
    for face, said in ((descriptor.tcp, found.report["tcp"]), (descriptor.udp, found.report["udp"])):
        assert face is not None
        assert (said["local_port"], said["public"]) == (face.local_port, str(face.public))
        assert (said["mapping"], said["filtering"]) == (face.nat.mapping, face.nat.filtering)
        seen = {(one["at_ms"], int(one["public"].rpartition(":")[2])) for one in said["seen"]}
        told = {(sample.at_ms, sample.public_port) for sample in face.samples}
        if kind == "random":
            assert told == seen
        else:
            assert 2 == len(told)
            assert min(at_ms for at_ms, _ in seen) <= min(told)[0] <= max(told)[0] <= descriptor.made_ms
            assert min(port for _, port in seen) < max(told)[1]


# -- one linux NAT for all that follows --------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="street")
def _street() -> Iterator[Lab]:
    with Lab("linux", "open", echo=None) as lab:
        start_own(lab)
        for box in _boxes(lab):
            for key in ("udp_timeout", "udp_timeout_stream"):
                box.sysctl(f"net.netfilter.nf_conntrack_{key}", "2")
        yield lab


@pytest.fixture(scope="module", name="daemon")
def _daemon(street: Lab) -> Iterator[Daemon]:
    with Daemon(street.a, "--stun", SERVER, "--keepalive", "0.5", "--endpoints-per-uid", "3") as daemon:
        yield daemon


def _boxes(lab: Lab) -> list[Namespace]:
    return [place for place in lab.namespaces if "-nat-a" in place.name]


def _entries(lab: Lab, transport: str, port: int) -> list[str]:
    """What the NAT's table holds for the local port towards the server that keeps it."""
    (box,) = _boxes(lab)
    return [
        line for line in box.conntrack()
        if f" {transport} " in line and f"dst={SERVER} sport={port} dport=3478 " in line
    ]  # fmt: skip


def test_own_server_calls_nobody_but_the_asker_and_not_too_often(street: Lab) -> None:
    """Whoever could make it call others would have a cannon; whoever is called too often gets plain answers instead."""
    request = encode_request(bytes(12), Change(address=False, port=True))
    tcp = (socket.AF_INET, socket.SOCK_STREAM)
    with street.b.socket(*tcp) as line, street.b.socket(*tcp) as port:
        for sock in (line, port):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((street.b.address, 23456))
            sock.settimeout(5)
        line.connect((SERVER, 3478))
        port.listen(32)
        began = time.monotonic()
        line.sendall(request * 20)
        callers = [_caller(port) for _ in range(4)]
        heard = b""
        while len(heard) < 16 * (length := message_len(heard) or 1 << 20):
            heard += line.recv(4096)
        answers = [decode_answer(heard[at : at + length]) for at in range(0, len(heard), length)]
        assert [Endpoint(street.public_b, 23456)] * 16 == [answer.mapped for answer in answers if answer is not None]
        assert {SERVER} == {address for address, _ in callers}
        assert not {3478, 3479} & {number for _, number in callers}
        if time.monotonic() - began < 1:  # else this machine is too slow to tell
            port.settimeout(0.1)
            with pytest.raises(TimeoutError):
                port.accept()


def _caller(port: socket.socket) -> tuple[str, int]:
    sock, source = port.accept()
    sock.close()
    address, number = source
    return str(address), int(number)


def test_keepalive_holds_the_mapping_and_cancel_lets_it_go(street: Lab, daemon: Daemon) -> None:
    """The NAT forgets UDP after 2 s here; a punch minutes later must find the port."""
    with client.connect_blocking(daemon.path) as caller:
        kept = caller.keep_endpoint()
        report = kept.found().report
        ports = {transport: report[transport]["local_port"] for transport in ("udp", "tcp")}
        time.sleep(3.5)
        for transport, port in ports.items():
            assert 1 == len(_entries(street, transport, port)), transport
        assert set(ports.values()) <= {sock["port"] for sock in held_sockets(street.a)}
        assert [kept.id] == [one["endpoint"].partition("/")[2] for one in caller.status()["endpoints"]]
        kept.cancel()
        with pytest.raises(client.PunchFailed, match="cancelled"):
            kept.found()
        assert [] == held_sockets(street.a)
        time.sleep(2.5)
        assert [] == _entries(street, "udp", ports["udp"])


def test_mapping_that_the_nat_forgets_is_told_anew(street: Lab, daemon: Daemon) -> None:
    """A router that restarts: the caller hears of the new endpoint, its peers would search the old one."""
    (box,) = _boxes(street)
    with client.connect_blocking(daemon.path) as caller:
        kept = caller.keep_endpoint(transport="udp")
        before = kept.found().report["udp"]["public"]
        box.nft("table ip shift { chain s { type nat hook postrouting priority srcnat - 5;"
                " oifname outside meta l4proto udp masquerade to :50000-50100; }; }")  # fmt: skip
        box.run(["ip", "link", "set", "outside", "down"])  # masquerade forgets what left by it
        box.run(["ip", "link", "set", "outside", "up"])
        box.run(["ip", "route", "replace", "default", "via", "203.0.113.1"])
        after = kept.found().report["udp"]["public"]
        box.run(["nft", "delete", "table", "ip", "shift"])
    assert before != after
    assert 50000 <= int(after.rpartition(":")[2]) <= 50100


def test_caller_that_goes_takes_its_ports_along(street: Lab, daemon: Daemon) -> None:
    """Nobody is left who could cancel."""
    fds = daemon.fds()
    with client.connect_blocking(daemon.path) as caller:
        caller.keep_endpoint().found()
        caller.keep_endpoint(servers=["192.0.2.77"])
    deadline = time.monotonic() + 2
    while (held_sockets(street.a) or daemon.fds() > fds) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [] == held_sockets(street.a)
    assert daemon.fds() <= fds


@pytest.mark.parametrize(
    ("kinds", "command_b", "techniques"),
    [
        (("untracked", "untracked"), DAEMON, sorted(set(TECHNIQUES) - {"tcp-direct", "tcp-birthday", "udp-birthday"})),
        (("open", "linux"), UNPRIVILEGED, ["tcp-direct", "tcp-simopen", "udp"]),
    ],
    ids=["root", "unprivileged"],
)
def test_punch_leaves_from_kept_ports_while_they_are_kept(
    kinds: tuple[str, str], command_b: tuple[str, ...], techniques: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The point of keeping them: both sides punch from these very ports, beside keepalives."""
    monkeypatch.setenv("PUNCHD_UID", str(NOBODY if command_b == UNPRIVILEGED else 0))
    options = ["--stun", SERVER, "--keepalive", "0.5"]
    with duo(*kinds, command_a=(*BENT, "chosen"), command_b=command_b, options=options) as both:
        start_own(both.lab)
        for technique in techniques:
            transport = technique.partition("-")[0]
            with client.connect_blocking(both.a.path) as near, client.connect_blocking(both.b.path) as far:
                kept = [caller.keep_endpoint() for caller in (near, far)]
                ports = [one.found().report[transport]["local_port"] for one in kept]
                Path(f"{both.a.path}.ports").write_text(json.dumps(ports), encoding="ascii")
                with both.punched(technique) as (one, other):
                    assert ports == [int(end.local.rpartition(":")[2]) for end in (one, other)]
                    assert one.remote == f"{both.lab.public_b}:{ports[1]}"
                    one.socket.sendall(b"hello")
                    assert b"hello" == other.socket.recv(100)
                    time.sleep(1.2)  # two keepalives
                    statuses = [caller.status() for caller in (near, far)]
                    assert [1, 1] == [len(status["endpoints"]) for status in statuses]
                    other.socket.sendall(b"you too")
                    assert b"you too" == one.socket.recv(100)
                assert "mapping lost" not in both.a.log() + both.b.log(), technique


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"servers": ["127.0.0.1"]}, "target-refused"),
        ({"servers": ["10.0.1.1:3478"]}, "target-refused"),
        ({"servers": ["224.0.0.1"]}, "target-refused"),
        ({"servers": ["255.255.255.255"]}, "target-refused"),
        ({"servers": [SERVER, "192.168.1.1"]}, "target-refused"),
        ({"servers": ["stun.example.org"]}, "bad-value"),
        ({"servers": ["192.0.2.1"] * 9}, "bad-value"),
        ({"transport": "sctp"}, "bad-value"),
        ({"keep": 1}, "bad-value"),
        ({"servers": ["192.0.2.77"], "timeout_ms": 300}, "no-answer"),
        ({"servers": ["192.0.2.77"], "timeout_ms": 300, "keep": True}, "no-answer"),
    ],
)
def test_requests_that_lead_nowhere_get_their_code(daemon: Daemon, keys: dict[str, Any], code: str) -> None:
    """Private and special addresses are never asked, silence is named as such."""
    with Talker(daemon.path) as talker:
        said = talker.ask({"id": "1", "call": "endpoint"} | keys)
        assert code == said["code"]
        if code == "no-answer":
            assert {"udp", "tcp"} == set(said["cause"])
            assert ["192.0.2.77:3478"] == [one["server"] for one in said["cause"]["udp"]["silent"]]


def test_one_user_may_have_so_many_endpoints(daemon: Daemon) -> None:
    """Each holds ports and sends for ever."""
    with Talker(daemon.path) as talker:
        for number in range(3):
            talker.say({"id": str(number), "call": "endpoint", "keep": True})
        assert "too-many-attempts" == talker.ask({"id": "over", "call": "endpoint"})["code"]
        while talker.hear().get("stage") != "found":
            pass
        assert "cancelled" == _final_of(talker, {"id": "c", "call": "cancel", "attempt": "0"}, "0")["code"]
        assert "ok" == talker.ask({"id": "again", "call": "endpoint"})["status"]


def test_daemon_that_ends_says_so_to_whoever_keeps_an_endpoint(street: Lab) -> None:
    """The mapping is gone with it."""
    with Daemon(street.a, "--stun", SERVER) as daemon, Talker(daemon.path) as talker:
        talker.say({"id": "1", "call": "endpoint", "keep": True})
        while talker.hear().get("stage") != "found":
            pass
        daemon.child.terminate()
        assert "shutting-down" == talker.final()["code"]
    assert [] == held_sockets(street.a)


def test_endpoint_is_found_without_any_capability(street: Lab) -> None:
    """Asking needs no privilege."""
    with Daemon(street.a, command=UNPRIVILEGED) as daemon, Talker(daemon.path) as talker:
        report = talker.ask({"id": "1", "call": "endpoint", "servers": [SERVER]})["report"]
    assert (INDEPENDENT, INDEPENDENT) == (report["udp"]["mapping"], report["tcp"]["mapping"])


def test_daemon_without_servers_asks_for_some(street: Lab) -> None:
    """Nobody's servers are asked unless somebody named them."""
    with Daemon(street.a) as daemon, Talker(daemon.path) as talker:
        assert "no-server" == talker.ask({"id": "1", "call": "endpoint"})["code"]


def test_netcheck_shows_verdicts_beside_raw_data(daemon: Daemon) -> None:
    """For a person; the same as JSON for a script."""
    shown = punchctl(daemon, "netcheck", "--server", SERVER, "--server", "192.0.2.77")
    for words in ("UDP", "TCP", INDEPENDENT, STRICTEST, "ports are kept", f"{SECOND}:3479", "no answer to 3 requests",
                  "drops strays", "is dropped in silence", "forgives", "is heard all the same"):  # fmt: skip
        assert words in shown
    said = json.loads(punchctl(daemon, "netcheck", "--json", "--transport", "udp"))
    assert {"host", "ttl", "udp"} == set(said["report"])
    assert said["descriptor"].startswith("ZTE")


def test_packages_of_dev_include_the_real_stun_server() -> None:
    """Without it the lab would test our server by our client alone."""
    assert shutil.which("turnserver")
    assert " coturn" in (Path(__file__).parents[2] / "dev").read_text(encoding="utf-8")


def punchctl(daemon: Daemon, *arguments: str) -> str:
    argv = [sys.executable, "-c", "from punchd.ctl import main; main()", *arguments]
    done = subprocess.run(
        argv, env=os.environ | {"PUNCHD_SOCKET": daemon.path}, capture_output=True, text=True, check=True
    )
    return done.stdout


def _final_of(talker: Talker, line: dict[str, Any], id_: str) -> dict[str, Any]:
    talker.say(line)
    while (said := talker.hear())["id"] != id_ or said["status"] == "progress":
        pass
    return said
