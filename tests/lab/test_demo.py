"""The demo shows what happened and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from punchd.core.techniques import TECHNIQUES
from punchd.lab.demo import ACTS

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

DEMO = (sys.executable, "-m", "punchd.lab", "demo")
NAMESPACES = Path("/run/netns")
_TABLE = re.compile(r"^[┏┡├└│┃]")


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_the_width_and_tells_the_handshake(width: int) -> None:
    """A wrapped border makes a table unreadable, and the wire's story is what the table is for."""
    done = subprocess.run(
        [*DEMO, "tcp-simopen"], capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": str(width)}
    )
    assert 0 == done.returncode, done.stderr
    table = [line for line in done.stdout.splitlines() if _TABLE.match(line)]
    assert 1 == len({len(line) for line in table})
    assert len(table[0]) <= width
    steps = ["A SYN (dies at r1)", "B SYN", "A SYN-ACK (dies at r1)", "A SYN-ACK", "B ACK", "B ACK commit"]
    assert steps == [found for line in table for found in re.findall(r" \d+\.\d ([AB] [^│]*?) *│", line)]
    assert 2 == sum(line.count("64 KiB") for line in table)
    assert "1 of 1 connected" in done.stdout


def test_every_technique_has_its_act() -> None:
    """What is there is shown."""
    assert [*TECHNIQUES, "auto"] == sorted((act.technique for act in ACTS), key=[*TECHNIQUES, "auto"].index)


def test_a_fan_shows_the_lane_that_met_and_how_many_did_not() -> None:
    """A thousand packets are no story; the one that found the hole is, under the port that the NAT drew."""
    done = subprocess.run([*DEMO, "udp-birthday"], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    steps = re.findall(r" \d+\.\d ([AB] datagram [^│]*?) *│", done.stdout)
    assert ["A datagram prime (dies at r1)", "B datagram fire", "A datagram answer"] == steps[:3]
    (others,) = re.findall(r"and (\d+) other lanes", done.stdout)
    assert int(others) >= 256


def test_every_technique_connects_where_the_demo_shows_it() -> None:
    """`./dev demo` is the first thing that a newcomer sees."""
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{len(ACTS)} of {len(ACTS)} connected" in done.stdout


@pytest.mark.parametrize("moment", ["1 of", "  A  notify", "  B  punched"])
def test_an_interrupted_demo_leaves_no_namespace_no_process_and_no_file(moment: str, tmp_path: Path) -> None:
    """People stop a demo; twice in a row if it takes a moment."""
    mark = f"PUNCHD_TEST_MARK={tmp_path}"
    environ = os.environ | dict([mark.split("=")], TMPDIR=str(tmp_path))
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(moment):
            break
    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGINT)
    said, complaints = demo.communicate(timeout=20)
    assert 130 == demo.returncode, complaints
    assert "" == complaints
    assert said.rstrip().endswith("is gone")
    assert [] == [path.name for path in NAMESPACES.iterdir() if path.name.startswith(f"pd{demo.pid}-")]
    assert [] == _bearing(mark)
    assert [] == list(tmp_path.iterdir())


def _bearing(mark: str) -> list[str]:
    """Processes that inherited the mark: the demo's own, their children, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if mark.encode() in environ.split(b"\0"):
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
