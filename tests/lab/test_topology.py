"""The lab builds quickly, carries packets, delays them as told and leaves nothing behind.

It refuses to judge NATs: test_kinds.py does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from punchd.lab.namespace import Namespace, new_prefix, remove, stale
from punchd.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def _connect_ms(source: Namespace, target: Namespace) -> float:
    with target.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((target.address, 7))
        listener.listen()
        with source.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
            start = time.monotonic()
            caller.connect((target.address, 7))
            return (time.monotonic() - start) * 1000


def test_hosts_reach_the_server_through_their_nats() -> None:
    """The side channel is an ordinary connection."""
    with Lab("linux", "linux-reject", echo=None) as lab:
        for host in (lab.a, lab.b):
            assert _connect_ms(host, lab.server) < 100


def test_server_sees_the_public_address() -> None:
    """It tells each peer what to pass as `self`."""
    with Lab("linux", "untracked", echo=None) as lab:
        with lab.server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((lab.server.address, 7))
            listener.listen()
            for host, public in ((lab.a, lab.public_a), (lab.b, lab.public_b)):
                with host.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
                    caller.connect((lab.server.address, 7))
                    accepted, address = listener.accept()
                    accepted.close()
                    assert public == address[0]


def test_building_is_quick_and_removal_complete() -> None:
    """A matrix builds dozens; rule 32."""
    start = time.monotonic()
    with Lab("linux", "linux", echo=None) as lab:
        assert time.monotonic() - start < 2
        sleeper = lab.a.popen(["sleep", "100"])
        names = [place.name for place in lab.namespaces]
        assert all(Path("/run/netns", name).exists() for name in names)
    assert sleeper.returncode is not None
    assert not any(Path("/run/netns", name).exists() for name in names)


def test_failure_inside_the_block_removes_everything() -> None:
    """A test that fails must not poison the next."""
    with pytest.raises(ZeroDivisionError):
        with Lab("open", "open", echo=None) as lab:
            raise ZeroDivisionError
    assert not Path("/run/netns", lab.a.name).exists()


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_signal_removes_everything(number: str) -> None:
    """Ctrl-C and a supervisor's SIGTERM are ordinary ends."""
    text = (
        "from punchd.lab.topology import Lab\nimport time\n"
        "with Lab('linux', 'linux', delay_ms=1, echo=None) as lab:\n"
        "    print(lab.prefix, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        prefix = child.stdout.readline().strip()
        subprocess.run(["kill", f"-{number}", str(child.pid)], check=True)
        child.wait(10)
    assert not list(Path("/run/netns").glob(f"{prefix}*"))


def test_sweep_finds_only_what_dead_runs_left() -> None:
    """Two runs at a time are normal here; a killed one leaves namespaces behind."""
    text = (
        "from punchd.lab.topology import Lab\nimport os, signal\n"
        "lab = Lab('open', 'open', delay_ms=1, echo=None).__enter__()\n"
        "lab.a.popen(['sleep', '100'], stdout=-3)\n"
        "print(lab.prefix, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=False)
    prefix = done.stdout.strip()
    with Lab("open", "open", echo=None) as lab:
        left = [name for name in stale() if name.startswith(prefix)]
        assert len(left) == 9
        assert not [name for name in stale() if name.startswith(lab.prefix)]
        remove(left)
        assert not [name for name in stale() if name.startswith(prefix)]


def test_prefixes_never_repeat() -> None:
    """Two labs of one process must not collide."""
    assert len({new_prefix() for _ in range(20)}) == 20


@pytest.mark.parametrize("delay_ms", [10.0, 50.0])
def test_delay_is_what_was_asked_for(delay_ms: float) -> None:
    """The times of the acceptance table are compared with it: half of the path lies before the server."""
    with Lab("linux", "open", delay_ms=delay_ms, echo=None) as lab:
        whole = [_connect_ms(lab.a, lab.b) for _ in range(5)]
        half = [_connect_ms(lab.a, lab.server) for _ in range(5)]
    assert min(whole) == pytest.approx(2 * delay_ms, abs=1.0)
    assert min(half) == pytest.approx(delay_ms, abs=1.0)
    assert min(whole) >= 2 * delay_ms


def _datagrams(lab: Lab, count: int) -> list[int]:
    """Send numbered datagrams from a to b; the numbers in the order they arrived."""
    with lab.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        target.bind((lab.b.address, 7))
        target.settimeout(0.3)
        with lab.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            for number in range(count):
                source.sendto(number.to_bytes(4, "big"), (lab.b.address, 7))
        arrived = []
        try:
            while True:
                arrived.append(int.from_bytes(target.recv(10), "big"))
        except TimeoutError:
            return arrived


def test_loss_is_what_was_asked_for_over_the_whole_path() -> None:
    """Two lines share it: both together lose the share that was asked for."""
    with Lab("open", "open", loss=0.2, echo=None) as lab:
        arrived = _datagrams(lab, 2000)
    assert 0.16 < 1 - len(arrived) / 2000 < 0.24
    assert arrived == sorted(arrived)


def test_jitter_alone_keeps_the_order_and_reorder_breaks_it() -> None:
    """Queues vary in length, they don't overtake; load balancers do."""
    with Lab("open", "open", delay_ms=4, jitter_ms=4, echo=None) as lab:
        arrived = _datagrams(lab, 500)
        assert list(range(500)) == arrived
    with Lab("open", "open", delay_ms=4, reorder=0.1, duplicate=0.1, echo=None) as lab:
        arrived = _datagrams(lab, 500)
        assert arrived != sorted(arrived)
        assert len(arrived) > 510
        assert set(range(500)) == set(arrived)


def test_large_transfer_survives_the_delay_line() -> None:
    """Issue 2's 100 MB transfers cross it; it must be neither the bottleneck nor lossy."""
    size = 30_000_000
    with Lab("linux", "open", delay_ms=5, echo=None) as lab:
        with lab.b.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((lab.b.address, 7))
            listener.listen()
            with lab.a.socket(socket.AF_INET, socket.SOCK_STREAM) as source:
                source.connect((lab.b.address, 7))
                target, _ = listener.accept()
                sender = threading.Thread(target=source.sendall, args=(bytes(size),))
                start = time.monotonic()
                sender.start()
                got = 0
                while got < size:
                    got += len(target.recv(1 << 20))
                took_s = time.monotonic() - start
                sender.join()
                target.close()
    assert took_s < 3, f"{size / took_s / 1e6:.0f} MB/s"


def test_capture_holds_what_crossed(tmp_path: Path) -> None:
    """`--pcap` is how a failed cell is explained."""
    with Lab("linux", "open", pcap_dir=tmp_path, echo=None) as lab:
        _connect_ms(lab.a, lab.b)
        roles = {place.name.removeprefix(lab.prefix) for place in lab.namespaces}
    assert roles == {path.stem for path in tmp_path.glob("*.pcap")}
    text = subprocess.run(
        ["tcpdump", "-nr", str(tmp_path / "r1.pcap")], capture_output=True, text=True, check=True
    ).stdout
    assert "203.0.113.2" in text
    assert "10.0.1.2" not in text
