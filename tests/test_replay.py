"""A journal is a test: the same events at the same times make the same effects, whatever the run was.
It refuses to look at files; tests/daemon/test_journal.py does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.core import plan
from punchd.core.attempt import Attempt
from punchd.daemon.journal import head_of
from punchd.lab.model import World
from punchd.lab.model_kinds import KINDS
from punchd.lab.model_peer import Daemon
from punchd.replay import ladder, main, replay
from punchd.wire.journal import JournalError, encode_head, encode_step
from punchd.words.effects import Effect
from punchd.words.events import Event
from punchd.words.notification import Opening
from punchd.words.plan import Row

TECHNIQUES = ["tcp-simopen", "tcp-midstream", "tcp-syni", "tcp-nutss", "tcp-direct"]


def journals(kind_a: str = "linux", kind_b: str = "linux", **setting: Any) -> tuple[list[bytes], list[bytes]]:
    """Both sides' journals of one modelled run; the second is empty when B never heard."""
    books: list[list[bytes]] = []

    def write(daemon: Daemon, attempt: Attempt) -> None:
        book = [encode_head(head_of(attempt))]
        books.append(book)

        def note(event: Event | None, now: float, effects: list[Effect]) -> None:
            book.append(encode_step(event, now, attempt.state.name, effects))

        daemon.watcher = note

    World(kind_a, kind_b, on_attempt=write, **setting).run()
    return books[0], books[1] if len(books) > 1 else []


@given(
    st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS)),
    st.none() | st.lists(st.sampled_from(TECHNIQUES), min_size=1, max_size=5), st.integers(0, 2**32),
    st.sampled_from([0.0, 0.3]), st.booleans(), st.none() | st.floats(0, 3000),
    st.dictionaries(st.integers(0, 12), st.just("port-taken"), max_size=3),
)  # fmt: skip
def test_every_run_replays(
    kind_a: str, kind_b: str, techniques: list[str] | None, seed: int, loss: float, early: bool,
    cancel_a_ms: float | None, faults: dict[int, str],
) -> None:  # fmt: skip
    """Ports drawn afresh, cancels and losses included; through bytes and back."""
    for book in journals(
        kind_a, kind_b, techniques=techniques, seed=seed, loss=loss, early=early, cancel_a_ms=cancel_a_ms,
        faults_a=faults, jitter_ms=30.0, timeout_s=3.0,
    ):  # fmt: skip
        if book:
            assert () == replay(book).differences


def test_datagrams_replay() -> None:
    """No ring, other effects."""
    for book in journals(transport="udp", loss=0.3):
        assert () == replay(book).differences


@pytest.mark.parametrize("technique", ["tcp-birthday", "udp-birthday"])
def test_fans_replay(technique: str) -> None:
    """All lanes from the seeds that the journal holds; refusals of the budget are events like others."""
    for lanes in (plan.own_random(), plan.peers_random()):
        rows = [Row(technique, opening, lanes=lanes) for opening in (Opening.PRIMED, Opening.REFIRED)]
        for book in journals("random", "linux", rows=rows, transport=technique[:3], timeout_s=2.0):
            assert () == replay(book).differences
            assert not [line for line in ladder(replay(book)) if "{" in line]


def test_a_core_that_does_something_else_is_told() -> None:
    """The replay of a user's journal is how a fix is proven, and a regression found."""
    _, book = journals(techniques=["tcp-simopen"])
    altered = [line.replace(b'"ttl":null', b'"ttl":9') for line in book]
    run = replay(altered)
    assert run.differences
    assert "ttl 9" in run.differences[0]
    run = replay([line.replace(b"LINGERING", b"FIRING") for line in book])
    assert any("lingering" in difference for difference in run.differences)


def test_the_ladder_tells_the_story_in_signs() -> None:
    """Style rule 29: < seen, > sent, = state, + opened, x closed, - time, ! fault."""
    a, b = journals(techniques=["tcp-simopen"])
    told = list(ladder(replay(b)))
    assert "responding to 203.0.113.2: tcp-simopen (punchd 0.1.0)" == told[0]
    assert any("+ pair 0: tcp-simopen, port " in line for line in told)
    assert any("100.0 ms  < pair 0: SYN-ACK seq " in line for line in told)
    assert any("100.0 ms  > pair 0: COMMIT, ttl full" in line for line in told)
    assert any("100.0 ms  = lingering" in line for line in told)
    assert "the core does the same today" in told[-1]
    told = list(ladder(replay(a)))
    assert told[0].startswith("initiating from 203.0.113.2 to 198.51.100.2: tcp-simopen")
    assert any(line.endswith("> the notification, to the application") for line in told)


@pytest.mark.parametrize("setting", [
    {"techniques": None, "kind_a": "linux-reject", "kind_b": "linux-reject", "hole_ttl": 6},
    {"techniques": ["tcp-syni", "tcp-nutss", "tcp-direct"], "early": True, "hosts_conntrack": True},
    {"techniques": ["tcp-midstream", "tcp-syni"], "kind_a": "untracked", "kind_b": "untracked", "early": True},
    {"transport": "udp", "kind_b": "linux-reject", "hole_ttl": 6},
    {"techniques": ["tcp-simopen", "tcp-direct"], "blind_a": True, "cancel_b_ms": 1500.0, "kind_b": "open"},
    {"techniques": None, "faults_a": {1: "port-taken", 3: "host-refused"}, "cancel_a_ms": 80.0},
])  # fmt: skip
def test_every_word_has_its_line_on_the_ladder(setting: dict[str, Any]) -> None:
    """No raw field reaches the reader."""
    for book in journals(**setting):
        for line in ladder(replay(book)) if book else ():
            assert "{" not in line


def test_an_unfinished_journal_is_replayed_as_far_as_it_goes() -> None:
    """The interesting ones end in a crash."""
    a, _ = journals(techniques=["tcp-midstream"])
    for lines in range(2, len(a)):
        assert () == replay(a[:lines]).differences
    with pytest.raises(JournalError, match="before its attempt had begun"):
        replay(a[:1])
    with pytest.raises(JournalError, match="without a notification"):
        replay([a[0].replace(b'"initiating"', b'"responding"')])


def test_the_command_says_by_its_status_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts: 0 the same, 1 not the same, 2 no journal."""
    path = tmp_path / "journal.jsonl"
    _, book = journals(techniques=["tcp-simopen"])
    path.write_bytes(b"".join(book))
    assert 0 == main(str(path))
    assert "the core does the same today" in capsys.readouterr().out
    path.write_bytes(b"".join(book).replace(b'"ttl":null', b'"ttl":9'))
    assert 1 == main(str(path))
    assert "! step 0" in capsys.readouterr().out
    path.write_bytes(b"no journal")
    assert 2 == main(str(path))
    assert 2 == main(str(tmp_path / "absent"))
    assert "No such file" in capsys.readouterr().err
