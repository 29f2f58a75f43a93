"""The journal's file: private, whole up to the last line, and never in an attempt's way.
It refuses to judge the lines; tests/wire/test_journal.py does."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from punchd.core.attempt import Attempt, State
from punchd.core.initiating import Initiating
from punchd.core.ports import Ports
from punchd.core.terms import Terms
from punchd.daemon.journal import JournalFile, Journals, head_of
from punchd.replay import replay
from punchd.words.events import Settled
from punchd.words.plan import Row


def an_attempt() -> Initiating:
    return Initiating(
        terms=Terms(True, bytes(range(16))), local="10.0.1.2", public="203.0.113.2", remote="198.51.100.2",
        rows=[Row("tcp-simopen")], ports=Ports(random.Random(1)), timeout_s=1.0, now=5.0,
    )  # fmt: skip


def written(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_nobody_asked_nothing_is_written() -> None:
    """The journal costs nothing when it is off."""
    assert Journals(None).open(an_attempt()) is None


def test_an_attempts_journal_replays(tmp_path: Path) -> None:
    """Head, beginning, steps; the end of the attempt ends it."""
    attempt = an_attempt()
    journal = Journals(str(tmp_path)).open(attempt)
    assert journal is not None
    journal.step(None, 5.0, attempt.state.name, attempt.begin())
    journal.step(Settled(), 5.5, "EXCHANGING", attempt.step(Settled(), 5.5))
    journal.close()
    journal.close()
    journal.step(Settled(), 6.0, "EXCHANGING", [])
    with written(tmp_path)[0].open("rb") as file:
        run = replay(file)
    assert (2, ()) == (len(run.steps), run.differences)


def test_only_the_daemons_user_may_read_it(tmp_path: Path) -> None:
    """It holds the nonce, from which sequence numbers and tags are made."""
    Journals(str(tmp_path)).open(an_attempt())
    assert 0o600 == stat.S_IMODE(written(tmp_path)[0].stat().st_mode)


def test_each_attempt_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Also when two share a nonce, as the two sides of one host do."""
    journals = Journals(str(tmp_path))
    journals.open(an_attempt())
    journals.open(an_attempt())
    assert 2 == len(written(tmp_path))


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """The folder may be shared, and we may be root."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Journals(str(tmp_path)).open(an_attempt())
    (journal,) = [path for path in written(tmp_path) if path != victim]
    journal.unlink()
    journal.symlink_to(victim)
    assert Journals(str(tmp_path)).open(an_attempt()) is None
    assert "precious" == victim.read_text()


def test_a_folder_that_is_not_there_costs_the_journal_only(tmp_path: Path) -> None:
    """The attempt goes on without."""
    assert Journals(str(tmp_path / "absent")).open(an_attempt()) is None


def test_a_full_disk_ends_the_journal_only() -> None:
    """/dev/full says ENOSPC; the step that met it is an attempt's, and must go on."""
    journal = JournalFile(os.open("/dev/full", os.O_WRONLY), "/dev/full")
    journal.step(Settled(), 1.0, "FIRING", [])
    journal.step(Settled(), 2.0, "FIRING", [])
    journal.close()


def test_a_half_written_line_is_the_last() -> None:
    """What came after it could not be told from its rest."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    journal = JournalFile(write_end, "pipe")
    journal.write(b"x" * 10_000_000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write_end)
    os.close(read_end)


def test_only_roles_have_journals() -> None:
    """The base class is no attempt."""
    bare = Attempt(terms=Terms(True, bytes(16)), local="", remote="", timeout_s=1.0, now=0.0, state=State.DONE)
    with pytest.raises(TypeError):
        head_of(bare)
