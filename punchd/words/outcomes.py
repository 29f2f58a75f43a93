"""How an attempt goes and how it ends, as the application is told.
Holds findings, not their wording in JSON."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .addresses import Endpoint


class Progress(msgspec.Struct, frozen=True, gc=False):
    """One line of news: `stage` is trying, failed, heard or proving."""

    stage: str
    technique: str
    code: str | None = None
    message: str | None = None


class Punched(msgspec.Struct, frozen=True, gc=False):
    """A connection that is proven in both directions; `tries` counts what this side saw fail before, and this one."""

    technique: str
    local: Endpoint
    remote: Endpoint
    rtt_ms: float | None
    elapsed_ms: float
    tries: int = 1


class Failed(msgspec.Struct, frozen=True, gc=False):
    """No connection; `cause` holds what the packets said, per technique."""

    code: str
    message: str
    advice: str
    cause: Mapping[str, object] = msgspec.field(default_factory=dict)
