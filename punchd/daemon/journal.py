"""One journal per attempt, in the folder that --journal names.
Costs nothing where it is off, and never costs an attempt: a full disk ends the journal alone.

The file is readable by the daemon's user only: it holds the attempt's nonce, which makes its secrets.
"""

from __future__ import annotations

import os
from typing import Any

import structlog

from punchd import __version__
from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.responding import Responding
from punchd.wire.journal import Head, encode_head, encode_step
from punchd.words.effects import Effect
from punchd.words.events import Event

log: Any = structlog.get_logger()


class Journals:
    """Opens a journal for each attempt, or none where there is no folder."""

    __slots__ = ("_folder", "_written")

    def __init__(self, folder: str | None) -> None:
        self._folder, self._written = folder, 0

    def open(self, attempt: Attempt) -> JournalFile | None:
        """A journal that begins with the attempt's head; None where none was asked for or the disk refuses."""
        if self._folder is None:
            return None
        self._written += 1
        head = head_of(attempt)
        path = os.path.join(self._folder, f"{head.role}-{head.nonce[:4].hex()}-{os.getpid()}-{self._written}.jsonl")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("no journal", path=path, error=str(error))
            return None
        journal = JournalFile(fd, path)
        journal.write(encode_head(head))
        return journal


class JournalFile:
    """Lines appended to one file, each with one write: what was written survives kill -9."""

    __slots__ = ("_fd", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path

    def step(self, event: Event | None, now: float, state: str, effects: list[Effect]) -> None:
        """One line; no event stands for the attempt's beginning."""
        if self._fd >= 0:
            self.write(encode_step(event, now, state, effects))

    def write(self, line: bytes) -> None:
        """Append; a disk that refuses ends the journal. A line cut short is the last, and readers leave it out."""
        try:
            whole = os.write(self._fd, line) == len(line)
        except OSError as error:
            log.warning("journal ends", path=self._path, error=str(error))
            whole = False
        if not whole:
            self.close()

    def close(self) -> None:
        """The attempt is over."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def head_of(attempt: Attempt) -> Head:
    """All that the attempt was made of."""
    match attempt:
        case Initiating():
            return Head(
                punchd=__version__, role="initiating", now=attempt.started, timeout_s=attempt.timeout_s,
                nonce=attempt.terms.nonce, hole_ttl=attempt.terms.hole_ttl, blind=attempt.terms.blind,
                local=attempt.local, remote=attempt.remote, public=attempt.public,
                rows=attempt.rows, early=attempt.early, in_turn=attempt.in_turn,
            )  # fmt: skip
        case Responding():
            return Head(
                punchd=__version__, role="responding", now=attempt.started, timeout_s=attempt.timeout_s,
                nonce=attempt.terms.nonce, hole_ttl=attempt.terms.hole_ttl, blind=attempt.terms.blind,
                local=attempt.local, notification=attempt.notification, runnable=tuple(sorted(attempt.runnable)),
            )  # fmt: skip
        case _:
            raise TypeError(f"{type(attempt).__name__} has no journal")
