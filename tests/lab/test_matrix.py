"""`lab matrix` runs what was asked for, keeps what it has, goes on where it stopped, and leaves nothing behind.

It refuses to need punchd: the daemon of a page from test_pair.py stands in for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cells_by_hand import cell
from click.testing import CliRunner

from punchd.lab.__main__ import main
from punchd.lab.cells import Conditions
from punchd.lab.matrix import Plan, merged, tasks
from punchd.lab.worker import Effort

PLAIN = f"{sys.executable} {Path(__file__).with_name('plain_daemon.py')}"
NAMESPACES = Path("/run/netns")


def test_auto_runs_over_each_transport_and_a_technique_over_its_own() -> None:
    """The cells of one pair of networks."""
    assert (("tcp", "auto"), ("udp", "auto"), ("tcp", "tcp-syni"), ("udp", "udp")) == tasks(
        ["auto", "tcp-syni", "udp"], ["tcp", "udp"]
    )
    assert (("udp", "auto"), ("udp", "udp")) == tasks(["auto", "tcp-syni", "udp"], ["udp"])


def test_every_ordered_pair_is_run_but_what_is_known() -> None:
    """A pair with itself too, and both directions."""
    plan = Plan(
        kinds=("linux", "cone"), tasks=tasks(["auto"], ["tcp", "udp"]), conditions=Conditions(), effort=Effort()
    )
    every = plan.networks()
    assert [("linux", "linux"), ("linux", "cone"), ("cone", "linux"), ("cone", "cone")] == [
        (one.a, one.b) for one in every
    ]
    known = [cell("linux", "linux", transport=transport) for transport in ("tcp", "udp")]
    left = plan.networks([*known, cell("cone", "linux", transport="udp"), cell("cone", "cone", delay_ms=9.0)])
    assert [("linux", "cone", 2), ("cone", "linux", 1), ("cone", "cone", 2)] == [
        (one.a, one.b, len(one.tasks)) for one in left
    ]


def test_fresh_cell_takes_the_place_of_the_known_one() -> None:
    """And no other's."""
    known = [cell(), cell("linux", "cone")]
    assert [cell(ok=3), known[1]] == merged(known, [cell(ok=3)])


def _matrix(path: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "punchd.lab", "matrix", "--techniques", "auto", "--runs", "2", "--json", str(path),
        "--daemon", PLAIN, *more,
    ]  # fmt: skip


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_small_matrix_is_run_drawn_and_resumed(tmp_path: Path) -> None:
    """From the command to the picture; what the file has is not run again."""
    path, argv = tmp_path / "m.json", _matrix(tmp_path / "m.json", "--kinds", "linux,cone", "--draw", f"{tmp_path}/m")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "8 of 8" in done.stderr
    cells: list[dict[str, Any]] = json.loads(path.read_text())
    pairs = [(a, b) for a in ("linux", "cone") for b in ("linux", "cone")]
    assert {(*pair, transport, 2, 2) for pair in pairs for transport in ("tcp", "udp")} == {
        (one["a"], one["b"], one["transport"], one["runs"], one["ok"]) for one in cells
    }
    assert {"m.json", "m.svg", "m.png"} == {one.name for one in tmp_path.iterdir()}
    path.write_text(json.dumps(cells[1:]))
    done = subprocess.run([*argv, "--resume"], capture_output=True, text=True, check=True)
    assert "1 of 1" in done.stderr
    assert 8 == len(json.loads(path.read_text()))


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_matrix_keeps_its_cells_and_leaves_no_namespace(tmp_path: Path, number: signal.Signals) -> None:
    """It runs for an hour; people stop it, twice if it takes a moment."""
    path = tmp_path / "m.json"
    run = subprocess.Popen(
        _matrix(path, "--kinds", "linux,cone,untracked", "--jobs", "2"), stderr=subprocess.PIPE, text=True
    )
    assert run.stderr is not None
    while "3 of 18" not in run.stderr.readline():
        pass
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert 2 == len(workers)
    run.send_signal(number)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=30)[1]
    assert 130 == run.returncode
    assert "Traceback" not in said
    assert 3 <= len(json.loads(path.read_text())) < 18
    assert [] == [
        one.name for one in NAMESPACES.iterdir() if one.name.startswith(tuple(f"pd{pid}-" for pid in workers))
    ]


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_network_that_cannot_be_run_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    """A cell that is missing without a word would pass for one that was never asked for."""
    path = tmp_path / "m.json"
    broken = ["--kinds", "linux", "--daemon", "sh -c 'exit 1'"]
    done = subprocess.run(_matrix(path, *broken), capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    assert "linux x linux: its worker ended with 1" in done.stderr
    assert [] == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--kinds", "linux,tomato"], "no kind 'tomato'"),
        (["--techniques", "auto,magic"], "no magic; there are: auto, "),
        (["--transports", "sctp"], "no sctp; there are: tcp, udp"),
    ],
)
def test_what_does_not_exist_is_refused_before_the_first_lab(tmp_path: Path, more: list[str], complaint: str) -> None:
    """A slip in a list of names would cost an hour, or its cells."""
    said = CliRunner().invoke(main, ["matrix", "--json", str(tmp_path / "m.json"), *more])
    assert 2 == said.exit_code
    assert complaint in said.output
    assert [] == list(tmp_path.iterdir())


def test_file_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    """`--resume` on the wrong file."""
    path = tmp_path / "m.json"
    path.write_text("{}")
    said = CliRunner().invoke(main, ["matrix", "--json", str(path), "--resume", "--kinds", "linux"])
    assert 1 == said.exit_code
    assert "holds no matrix" in said.output
    assert "{}" == path.read_text()
