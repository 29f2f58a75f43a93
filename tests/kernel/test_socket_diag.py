"""sock_diag by 4-tuple answers as the kernel's own look-up of an incoming segment would (edge/diag.py leans on it)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from punchd.edge.diag import SocketDiag

pytestmark = pytest.mark.kernel

HERE = "127.0.0.1"


@pytest.fixture(name="diag")
def _diag() -> Iterator[SocketDiag]:
    made = SocketDiag()
    yield made
    made.close()


def test_a_listener_holds_its_port_for_every_peer(diag: SocketDiag) -> None:
    """Bound to any address or to one; a punch to it would let a stranger in."""
    for address in (HERE, "0.0.0.0"):
        with socket.socket() as listener:
            listener.bind((address, 0))
            port = listener.getsockname()[1]
            assert not diag.holds((HERE, port), ("198.51.100.2", 4000))
            listener.listen(1)
            assert diag.holds((HERE, port), ("198.51.100.2", 4000))


def test_a_connection_holds_its_own_4_tuple_alone(diag: SocketDiag) -> None:
    """Live connections and those in TIME-WAIT leave the port free for other peers."""
    with socket.socket() as listener:
        listener.bind((HERE, 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        here, there = near.getsockname(), near.getpeername()
        assert diag.holds(here, there)
        assert not diag.holds(here, (HERE, there[1] - 1))
        near.close()
        assert far.recv(1) == b""
        far.close()
        assert diag.holds(here, there)  # TIME-WAIT
        assert not diag.holds(here, ("198.51.100.2", 4000))


def test_repair_mode_binds_beside_a_connection_that_forbids_reuse() -> None:
    """Handed-over sockets have SO_REUSEADDR 0, and so has their TIME-WAIT; their ports must not be lost to us."""
    with socket.socket() as listener:
        listener.bind((HERE, 0))
        listener.listen(1)
        with (
            socket.create_connection(listener.getsockname()) as near,
            socket.socket() as plain,
            socket.socket() as forced,
        ):
            here = near.getsockname()
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                plain.bind(here)
            forced.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR on ...
            forced.bind(here)
            forced.setsockopt(socket.IPPROTO_TCP, 19, -1)  # ... and off, without a probe
            other = socket.create_server((HERE, 0))
            forced.connect(other.getsockname())
            other.close()
