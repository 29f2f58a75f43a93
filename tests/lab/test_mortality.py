"""Whether a mapping outlives ICMP errors, by a real daemon and real servers: what is found is what the page says.

It refuses to look into the machine: tests/core/test_mortality.py does.
"""

from __future__ import annotations

import os
import socket
import sys

import pytest
from running import NOBODY, Daemon, held_sockets

from punchd import client
from punchd.lab.endpoints import start_coturn, start_own
from punchd.lab.pair import Pair
from punchd.lab.topology import SERVER, Lab
from punchd.wire.descriptor import decode_descriptor
from punchd.wire.stun import decode_answer, encode_request
from punchd.words.addresses import Endpoint

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

OWN_PORTS = (3488, 3489)  # beside coturn's
UNPRIVILEGED = (sys.executable, "-m", "punchd.lab.unprivileged", "none")
PAGES = {"linux": True, "icmp-kills": False, "sequential": True, "cgn": True, "icmp-kills/cgn": False}


@pytest.mark.parametrize("kind", PAGES)
def test_what_is_found_is_what_the_kinds_page_says(kind: str) -> None:
    """By coturn and by our own server, which share no code; the peer is told as well."""
    with Lab(kind, "open", echo=None) as lab:
        coturn, own = start_coturn(lab), start_own(lab, ports=OWN_PORTS)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            for servers in (coturn, own):
                found = caller.endpoint(servers=servers)
                descriptor = decode_descriptor(found.descriptor)
                for transport, face in (("udp", descriptor.udp), ("tcp", descriptor.tcp)):
                    assert PAGES[kind] is found.report[transport]["outlives_icmp"], (transport, servers)
                    assert face is not None
                    assert PAGES[kind] is face.nat.outlives_icmp
            assert [] == held_sockets(lab.a)


@pytest.mark.parametrize("kind", ["linux", "icmp-kills"])
def test_slow_and_lossy_path_makes_it_no_liar(kind: str) -> None:
    """100 ms one way and 2 % loss: found, or left open."""
    with Lab(kind, "open", delay_ms=100, loss=0.02, echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a) as daemon, client.connect_blocking(daemon.path) as caller:
            found = [
                caller.endpoint(servers=servers, transport="udp", timeout_ms=10000).report["udp"]["outlives_icmp"]
                for _ in range(3)
            ]
    assert {PAGES[kind], None} >= set(found)
    assert PAGES[kind] in found


def test_it_is_found_without_any_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error queue needs no privilege."""
    monkeypatch.setenv("PUNCHD_UID", str(NOBODY))
    with Lab("icmp-kills", "open", echo=None) as lab:
        servers = start_own(lab)
        with Daemon(lab.a, command=UNPRIVILEGED) as daemon, client.connect_blocking(daemon.path) as caller:
            assert caller.endpoint(servers=servers).report["udp"]["outlives_icmp"] is False


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_punch_from_behind_a_nat_that_kills_mappings_connects_at_first_try(transport: str) -> None:
    """What the whole measurement is for."""
    with Lab("icmp-kills", "linux", echo=None) as lab, Pair(lab) as pair:
        tally = pair.run("auto", runs=2, transport=transport, endpoint="run")
    assert (2, 2) == (tally.ok, tally.first_try)


def test_own_server_answers_at_no_other_address_and_no_low_port() -> None:
    """RESPONSE-PORT must not lead to anybody's services."""
    with Lab("open", "open", echo=None) as lab:
        start_own(lab)
        ports = (23456, 23457, 1023)
        asks, hears, service = sockets = [lab.a.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
        try:
            for sock, port in zip(sockets, ports, strict=True):
                sock.settimeout(5)
                sock.bind((lab.a.address, port))
            asks.sendto(encode_request(bytes(12), port=1023), (SERVER, 3478))
            asks.sendto(encode_request(bytes(12), port=23457), (SERVER, 3478))
            answer = decode_answer(hears.recv(1500))  # the server has read the other request before
            assert answer is not None
            assert Endpoint(lab.public_a, 23456) == answer.mapped
            for sock in (asks, service):
                sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    sock.recv(1500)
        finally:
            for sock in sockets:
                sock.close()
