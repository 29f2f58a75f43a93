"""Replies to lines of bytes: the daemon's half of PROTOCOL.md.
It refuses to choose what is said; it only spells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

PROTOCOL = 1


class Failure(Protocol):
    """What an error line says. Every PunchdError fits, and so may an outcome."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def cause(self) -> Mapping[str, Any]: ...
    @property
    def advice(self) -> str: ...


def progress(
    id_: str,
    stage: str,
    *,
    technique: str = "",
    notification: str = "",
    fds: int = 0,
    local: str = "",
    remote: str = "",
    failed: Failure | None = None,
) -> bytes:
    """One step of an attempt; `failed` says why a technique ended when another one follows."""
    reply = _Reply(
        id=id_,
        status="progress",
        stage=stage,
        technique=technique,
        notification=notification,
        fds=fds,
        local=local,
        remote=remote,
    )
    if failed is not None:
        reply.code, reply.message = failed.code, failed.message
        reply.cause, reply.advice = dict(failed.cause), failed.advice
    return _line(reply)


def punched(
    id_: str,
    *,
    technique: str,
    local: str,
    remote: str,
    rtt_ms: float | None,
    elapsed_ms: float,
    fds: int = 1,
) -> bytes:
    """The final line of an attempt that connected; fds is 0 where an early line brought the descriptor."""
    return _line(
        _Reply(
            id=id_,
            status="ok",
            fds=fds,
            technique=technique,
            local=local,
            remote=remote,
            rtt_ms=None if rtt_ms is None else round(rtt_ms, 3),
            elapsed_ms=round(elapsed_ms, 3),
        )
    )


def ok(id_: str, **more: Any) -> bytes:
    """The final line of any other call, with the keys of that call."""
    return _line({"id": id_, "status": "ok", **more})


def error(id_: str | None, failure: Failure) -> bytes:
    """The final line of an attempt that did not connect, or of a request that was refused."""
    return _line(
        {
            "id": id_,
            "status": "error",
            "code": failure.code,
            "message": failure.message,
            "cause": dict(failure.cause),
            "advice": failure.advice,
        }
    )


def with_dropped(line: bytes, dropped: int) -> bytes:
    """The same line, saying how many progress lines before it were dropped for a slow reader."""
    return b'%b,"dropped":%d}\n' % (line[:-2], dropped)


class _Reply(Struct, omit_defaults=True, kw_only=True):
    """Any reply about an attempt. A key at its default is left out."""

    id: str
    status: str
    stage: str = ""
    fds: int = 0
    technique: str = ""
    notification: str = ""
    local: str = ""
    remote: str = ""
    rtt_ms: float | None = None
    elapsed_ms: float = -1.0
    code: str = ""
    message: str = ""
    cause: dict[str, Any] = {}
    advice: str = ""


_encoder = msgspec.json.Encoder()


def _line(reply: _Reply | dict[str, Any]) -> bytes:
    return _encoder.encode(reply) + b"\n"
