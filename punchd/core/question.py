"""One STUN question of a probe: to whom, from where, what it is for, and whether an answer answers it.
It refuses to ask, and to know the time: core/probe.py does both.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf

from punchd.words.addresses import Endpoint
from punchd.words.probing import Answer, Change


class Purpose(Enum):
    """What an answer will tell."""

    MAPPING = auto()
    ACQUAINT = auto()
    OTHER_ADDRESS = auto()
    OTHER_PORT = auto()
    FORGIVEN = auto()
    SAMPLE = auto()
    KEEP = auto()


CHANGES = {
    Purpose.OTHER_ADDRESS: Change(address=True, port=True),
    Purpose.OTHER_PORT: Change(address=False, port=True),
}
_CALL_FAILED = 447  # RFC 6062, section 6.2: Connection Timeout or Failure
SILENCES = {"udp": "no answer", "tcp": "called in vain"}  # over TCP a server that can't call may be silent, too


class Question:
    """One Binding request to one server from one slot. `cause` is set once it is given up."""

    __slots__ = (
        "answered", "asked_at", "cause", "dialled", "due", "purpose", "refused", "rto_s", "sends", "server", "slot",
        "transaction", "until",
    )  # fmt: skip

    def __init__(
        self, purpose: Purpose, slot: int, server: Endpoint, *, transaction: bytes, due: float, rto_s: float
    ) -> None:
        self.purpose, self.slot, self.server, self.transaction = purpose, slot, server, transaction
        self.due, self.rto_s = due, rto_s
        self.until = inf  # over TCP, once it is asked: then it is given up
        self.sends = 0
        self.asked_at = due
        self.answered = self.dialled = False
        self.cause: str | None = None
        self.refused: bool | None = None  # what the answer says of strays

    @property
    def open(self) -> bool:
        return not self.answered and self.cause is None


def misfit(question: Question, source: Endpoint, answer: Answer) -> str | None:
    """Why this response does not answer the question; None if it does."""
    if answer.error == _CALL_FAILED:
        return SILENCES["tcp"]
    if answer.error is not None:
        return f"error {answer.error}"
    if answer.mapped is None or not answer.mapped.port:
        return "an answer without an address"
    change = CHANGES.get(question.purpose)
    if change is None:
        return None if source == question.server else f"answered by {source}"
    moved = (source.address != question.server.address, source.port != question.server.port)
    return None if moved == (change.address, change.port) else "change-request ignored"


def verdict(question: Question | None, silence: str) -> bool | None:
    """Whether the changed answer came; None: not asked, or asked of a server that does not play."""
    if question is None:
        return None
    if question.answered:
        return True
    return False if question.cause is not None and question.cause.startswith(silence) else None


def called_since(question: Question | None) -> bool | None:
    """Whether an end that was to call over TCP has been heard after its call; None: nobody can tell."""
    if question is None or question.cause is None:
        return None
    if question.cause == SILENCES["tcp"]:
        return True
    return False if question.cause.startswith(SILENCES["udp"]) else None
