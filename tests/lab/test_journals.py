"""A journal of a real attempt, played again: what a user sends with a bug report becomes a test.

It refuses to look into the journal; the command line tells.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from duo import duo

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PUNCHCTL = [sys.executable, "-c", "from punchd.ctl import main; main()"]


def test_journals_of_both_sides_replay_alike_and_read_as_ladders(tmp_path: Path) -> None:
    """The core is pure: the same events at the same times must bring the same effects."""
    with duo("linux", "linux", options=["--journal", str(tmp_path)]) as both:
        with both.punched("tcp-midstream"):
            pass
    journals = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert 2 == len(journals)
    for journal in journals:
        done = subprocess.run([*PUNCHCTL, "replay", str(journal)], capture_output=True, text=True)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert "the core does the same today" in done.stdout
        assert " > pair 0: " in done.stdout
        assert " < pair 0: " in done.stdout


def test_an_altered_journal_is_told_apart(tmp_path: Path) -> None:
    """A replay that always agrees would prove nothing."""
    with duo("linux", "linux", options=["--journal", str(tmp_path)]) as both:
        with both.punched("tcp-simopen"):
            pass
    for journal in (path for path in tmp_path.rglob("*") if path.is_file()):
        text = journal.read_text(encoding="utf-8")
        altered = tmp_path / "altered"
        altered.write_text(text.replace('"ttl":2', '"ttl":3').replace('"Connect"', '"Abort"', 1), encoding="utf-8")
        assert altered.read_text(encoding="utf-8") != text
        done = subprocess.run([*PUNCHCTL, "replay", str(altered)], capture_output=True, text=True)
        assert 0 != done.returncode
