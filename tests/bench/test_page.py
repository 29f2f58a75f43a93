"""Whether the README's section says what was recorded, and all of it that was picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import _page


def figure(name: str, value: float | None, unit: str, target: str | None = None, *, met: bool | None = None) -> Any:
    return {"figure": name, "value": value, "unit": unit, "target": target, "met": met}


def said(*figures: Any, bench: str = "throughput", plots: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "bench": bench, "figures": figures, "plots": plots, "seconds": 90.0, "versions": {"commit": "abc"},
        "machine": {"cores": 2, "cpu": "A CPU", "kernel": "6.1", "load": 0.1},
    }  # fmt: skip


def test_a_missed_target_is_said() -> None:
    """Numbers that fall short stand there as the others do."""
    text = _page.section([said(figure("udp of uvloop at 100", 0.2512, "x", ">= 0.4", met=False))])
    assert "| throughput | udp of uvloop at 100 | 0.251 x | >= 0.4, missed |\n" in text


def test_what_was_not_picked_stays_in_the_record() -> None:
    """The section is short."""
    assert "at 1000" not in _page.section([said(figure("udp of uvloop at 1000", 0.3, "x"))])


def test_only_plots_that_were_drawn_are_shown() -> None:
    """A page must not show a picture of another run."""
    text = _page.section([said(bench="scale", plots=("docs/plots/scale.svg", "docs/plots/soak.svg"))])
    assert ["docs/plots/scale.svg"] == [part.partition(")")[0] for part in text.split("](") if ".svg" in part]


def test_a_record_replaces_the_section_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README is written by people."""
    page = tmp_path / "README.md"
    page.write_text(f"above\n{_page.BEGIN}old\n{_page.END}below\n", encoding="utf-8")
    monkeypatch.setattr(_page, "README", page)
    monkeypatch.setattr(_page, "RECORD", tmp_path / "bench.json")
    run = [said()]
    _page.rewrite(run)
    expected = f"above\n{_page.BEGIN}{_page.section(run)}{_page.END}below\n"
    assert expected == page.read_text(encoding="utf-8")
