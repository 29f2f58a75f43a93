"""A test that falls asleep wakes the whole run: skips are compared with a committed list.
It runs pytest on suites of a line, each with a copy of the real conftest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SLEEPY = "import pytest\n\n@pytest.mark.skip(reason='tired')\ndef test_sleepy(): ...\n\ndef test_awake(): ...\n"
NODE = "tests/test_it.py::test_sleepy"
AWAKE = "tests/test_it.py::test_awake"


@pytest.mark.parametrize(
    ("listed", "options", "status", "complaint"),
    [
        ("", [], 1, f"skipped, but not listed: {NODE}  tired"),
        (f"{NODE}  tired\n", [], 0, ""),
        (f"{NODE}  lazy\n", [], 1, "skipped, but not listed"),
        (f"{NODE}  tired\n{AWAKE}  tired\n", [], 1, f"listed, but not skipped: {AWAKE}"),
        (f"{NODE}  tired\n{AWAKE}  tired\n", ["-k", "sleepy"], 0, ""),
    ],
)  # fmt: skip
def test_skips_equal_the_list(tmp_path: Path, listed: str, options: list[str], status: int, complaint: str) -> None:
    """One more fails, one less fails too where everything was run; a selection need not have all."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tests / "skips.txt").write_text("# a list\n" + listed)
    (tests / "test_it.py").write_text(SLEEPY)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\nmarkers =\n    lab: needs root\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert status == done.returncode, done.stdout
    assert complaint in done.stdout
