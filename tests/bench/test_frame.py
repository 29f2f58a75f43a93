"""Whether the frame of the benches tells what was measured, and no more."""

from __future__ import annotations

import ast
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from bench import _frame
from bench.__main__ import FOLDER, NAMES
from bench._frame import Figure, Plot, Progress, Report, at_least, at_most, interleaved, perform, ratios, share, summary


def silent(text: str) -> None:
    """Progress that nobody reads."""


def test_rounds_alternate_their_order() -> None:
    """On a machine that gets slower, whoever is always last would seem slower."""
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleaved(3, {"a": lambda: measure("a"), "b": lambda: measure("b")}, silent)
    assert ["a", "b", "b", "a", "a", "b"] == order
    assert {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]} == found


def test_a_ratio_is_taken_round_by_round() -> None:
    """A pair was measured in one moment of the machine; medians of both apart were not."""
    assert [0.5, 2.0] == ratios([1.0, 8.0], [2.0, 4.0])


def test_what_was_not_measured_meets_no_target() -> None:
    """A bench that could not run must not pass for one that did well."""
    assert Figure.absent("x", "ms", at_most(1), "no root").met is False
    assert Figure.absent("x", "ms", None, "no root").met is None


def test_a_target_at_its_limit_is_met() -> None:
    """The issue says "at least" and "at most"."""
    assert Figure.of("x", [1.0, 2.0, 3.0], "ms", at_most(2.0)).met
    assert Figure.of("x", [1.0, 2.0, 3.0], "ms", at_least(2.0)).met
    assert not Figure.of("x", [1.0, 2.1, 3.0], "ms", at_most(2.0)).met


def test_a_share_is_a_value_that_was_measured() -> None:
    """p99 of ten values is the greatest, not something between."""
    assert 10.0 == share([float(value) for value in range(1, 11)], 0.99)
    assert 3.0 == share([1.0, 3.0, 5.0], 0.5)


def bench(report: Report) -> ModuleType:
    """A module like those in bench/."""
    module = ModuleType("bench.made_up", "How much?\nNothing is measured.")

    def run(*, quick: bool, progress: Progress) -> Report:
        progress("half way")
        return report

    run.__module__ = module.__name__
    module.run = run
    sys.modules[module.__name__] = module
    return module


def test_the_last_line_is_the_object_that_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes elsewhere, so that a pipe can take the last line of stdout."""
    figures = [Figure.of("rate", [1.0, 3.0, 2.0], "1/s", at_least(5)), Figure.of("other", [1.0], "ms")]
    perform("made_up", bench(Report(figures)).run, quick=True)
    out, err = capsys.readouterr()
    said = json.loads(out.splitlines()[-1])
    assert {"figure": "rate", "value": 2.0, "unit": "1/s", "spread": [1.0, 3.0], "target": ">= 5", "met": False,
            "note": ""} == said["figures"][0]  # fmt: skip
    assert said["met"] is False
    assert "How much?" == said["question"]
    assert {"cpu", "cores", "kernel", "memory_mib", "load"} == set(said["machine"])
    assert {"python", "punchd", "commit"} <= set(said["versions"])
    assert "half way" in err


def test_installing_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """It happens once on a machine, and says nothing of how long a run of the benches takes."""
    begun = time.monotonic()
    said = perform("made_up", bench(Report([], installing_s=30.0)).run, quick=True)
    assert -30.0 <= said["seconds"] <= -30.0 + 1.0 + (time.monotonic() - begun)
    assert 30.0 == said["installing_s"]
    rows = [
        {"bench": "a", "seconds": 10.04, "cpu_s": 3.0, "installing_s": 0.0},
        {"bench": "b", "seconds": 20.0, "cpu_s": 4.0, "installing_s": 30.0},
    ]
    assert [
        "a              10.0 s,    3.0 s of processor",
        "b              20.0 s,    4.0 s of processor; installing 30.0 s",
        "all            30.0 s,    7.0 s of processor; installing 30.0 s",
    ] == summary(rows)
    capsys.readouterr()


def test_each_bench_has_a_quick_size() -> None:
    """One that takes no notice of --quick takes minutes of the few that all of them have."""
    for name in NAMES:
        (run,) = (
            node
            for node in ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name == "run"
        )
        asked = [node for node in ast.walk(run) if isinstance(node, ast.Name) and node.id == "quick"]
        assert asked, f"bench/{name}.py looks at no `quick`"


@pytest.mark.slow
def test_a_full_run_draws_and_a_quick_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots of hurried numbers would replace those in the README."""
    monkeypatch.setattr(_frame, "PLOTS", tmp_path / "docs" / "plots")
    plot = Plot(name="made-up", title="t", x="x", y="y", lines={"line": [(1, 2), (2, 3)]}, limits={"limit": 2.5},
                upright={"here": 1.5})  # fmt: skip
    made = bench(Report([Figure.of("x", [1.0], "ms")], [plot]))
    assert [] == perform("made_up", made.run, quick=True)["plots"]
    assert ["docs/plots/made-up.svg"] == perform("made_up", made.run, quick=False)["plots"]
    assert (tmp_path / "docs" / "plots" / "made-up.svg").read_text().count("<svg")
