"""The kernel lets a kept mapping and a punch share one local port, and gives each what is its own.
It tests no code of punchd's but the probe's and the punch's socket options.
"""

from __future__ import annotations

import os
import socket

import pytest

from punchd.edge import sockets
from punchd.edge.stun import Anchor, Datagrams, Line, open_port
from punchd.words.addresses import Endpoint

pytestmark = [pytest.mark.kernel]

HERE = "127.0.0.1"


def test_connected_udp_socket_gets_its_peers_datagrams_and_the_other_the_rest() -> None:
    """The servers' answers must not land in the application's queue, nor the peer's in the probe's."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        server.bind((HERE, 0))
        peer.bind((HERE, 0))
        probe = Datagrams((HERE, 0))
        port = probe.sock.getsockname()[1]
        with sockets.datagram((HERE, port), peer.getsockname(), shared=True) as punched:
            for handed_over in (False, True):
                if handed_over:  # an option like any other: the application gets a socket as new
                    sockets.restore(punched, bytes(8))
                    assert 0 == punched.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
                for _ in range(8):
                    peer.sendto(b"peer", (HERE, port))
                    server.sendto(b"server", (HERE, port))
                assert [b"peer"] * 8 == [punched.recv(100) for _ in range(8)]
                received = [probe.receive() for _ in range(8)]
                assert [(b"server", Endpoint(*server.getsockname()))] * 8 == received
                assert probe.receive() is None
        probe.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_port_that_somebody_holds_is_not_taken(transport: str) -> None:
    """A probe must not join a stranger's port; a listener is nobody's to share."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HERE, 0))
        if transport == "tcp":
            holder.listen()
        with pytest.raises(OSError, match="in use"):
            open_port(transport, holder.getsockname())


def test_tcp_port_serves_several_servers_and_a_punch_at_once() -> None:
    """The mapping is kept by one connection while another one leaves from the same port."""
    with socket.create_server((HERE, 0)) as one, socket.create_server((HERE, 0)) as other:
        anchor = Anchor((HERE, 0))
        local = anchor.sock.getsockname()
        lines = [Line(local, Endpoint(*server.getsockname())) for server in (one, other)]
        ends = [server.accept()[1] for server in (one, other)]
        assert [local, local] == ends
        assert sockets.is_free(local[1])
        with socket.create_server((HERE, 0)) as peer:
            punched = sockets.connecting(local, peer.getsockname(), None, force_port=False)
            assert local == peer.accept()[1]
            punched.close()
        for line in lines:
            line.close()
        anchor.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_can_not_join_a_udp_port() -> None:
    """SO_REUSEPORT asks for equal users (socket(7)); SO_REUSEADDR would not."""
    probe = Datagrams((HERE, 0))
    port = probe.sock.getsockname()[1]
    os.seteuid(65534)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                stranger.bind((HERE, port))
    finally:
        os.seteuid(0)
        probe.close()
