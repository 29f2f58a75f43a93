"""The examples do what their pages say. chat.py and rendezvous.py are the demo's, so test_demo.py has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from punchd.lab.pair import Pair
from punchd.lab.topology import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_sequences_prints_proposal_result_and_time() -> None:
    """It is where a reader takes a list of techniques from."""
    argv = [sys.executable, str(EXAMPLES / "sequences.py"), "both", "filter", "--runs", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    head, line, *_ = done.stdout.splitlines()
    assert head.startswith("known of the networks")
    words = line.split()
    assert ["both", "filter", "SYNs", "both", "linux-synfilter", "tcp-midstream", "1/1"] == words[:7]
    assert "tcp-midstream" == words[-1]


def test_sendfile_carries_a_file_between_two_hosts(tmp_path: Path) -> None:
    """The page of code that people start from."""
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(os.urandom(1 << 20))
    with Lab("linux", "linux-reject", echo=None) as lab, Pair(lab) as pair:
        server = lab.server.popen(
            [sys.executable, str(EXAMPLES / "rendezvous.py"), "--port", "7000"], stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        server.stdout.readline()
        sides = [
            host.popen(
                ["env", f"PUNCHD_SOCKET={pair.socket_path(role)}", sys.executable, str(EXAMPLES / "sendfile.py"),
                 "192.0.2.10:7000", *words],
            )
            for role, host, words in (
                ("b", lab.b, ["receive", "bob", str(received)]),
                ("a", lab.a, ["send", "anna", "bob", str(sent)]),
            )
        ]  # fmt: skip
        assert [0, 0] == [side.wait(20) for side in sides]
    assert sent.read_bytes() == received.read_bytes()
