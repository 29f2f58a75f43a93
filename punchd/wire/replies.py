"""Replies to lines of bytes: the daemon's half of PROTOCOL.md.
It refuses to choose what is said; it only spells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from punchd.words.hops import Hop, Reach, Way
from punchd.words.probing import Finding, Observation

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
    tries: int = 1,
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
            tries=tries,
        )
    )


def observed(id_: str, seen: Observation) -> bytes:
    """One server's answer to an `endpoint` request, as it comes in."""
    return _line({"id": id_, "status": "progress", "stage": "answered", "transport": seen.transport} | _seen(seen))


def lost(id_: str, transport: str) -> bytes:
    """No server confirms a kept mapping any more."""
    return _line({"id": id_, "status": "progress", "stage": "lost", "transport": transport})


def found(id_: str, descriptor: str, report: Mapping[str, Any], *, kept: bool) -> bytes:
    """What an `endpoint` request has found: its final line, or while the mapping is kept one that may come again."""
    status = {"status": "progress", "stage": "found"} if kept else {"status": "ok"}
    return _line({"id": id_, **status, "descriptor": descriptor, "report": report})


def report(findings: Iterable[Finding], *, host: str, way: Way, reach: Reach | None) -> dict[str, Any]:
    """The verdicts and, beside each, the raw data it rests on."""
    ttl: dict[str, Any] = {"clears": way.ttl, "least": way.least, "distance": way.distance, "hops": _hops(way.hops)}
    if reach is not None:
        said = {"public": reach.peer, "short": reach.short, "arrived": reach.arrived, "hops": _hops(reach.hops)}
        ttl["peer"] = said
    return {"host": host, "ttl": ttl} | verdicts(findings)


def _hops(hops: Iterable[Hop]) -> list[dict[str, Any]]:
    return [{"ttl": hop.ttl, "sender": hop.sender, "arrived": hop.arrived, "rtt_ms": hop.rtt_ms} for hop in hops]


def verdicts(findings: Iterable[Finding]) -> dict[str, Any]:
    """Per transport what was found."""
    return {finding.transport: _verdict(finding) for finding in findings}


def _verdict(finding: Finding) -> dict[str, Any]:
    raw = {
        "seen": [_seen(seen) | {"at_ms": seen.at_ms} for seen in finding.observations],
        "silent": [{"server": str(silence.server), "cause": silence.cause} for silence in finding.silences],
    }
    face = finding.face
    if face is None:
        return raw
    nat = face.nat
    local = finding.observations[0].local if finding.observations else face.public
    return {
        "public": str(face.public),
        "local_port": face.local_port,
        "translated": face.public.address != local.address,
        "mapping": nat.mapping,
        "filtering": nat.filtering,
        "allocation": nat.allocation,
        "step": nat.step,
        "outlives_icmp": nat.outlives_icmp,
        "drops_strays": nat.drops_strays,
        "forgives": nat.forgives,
    } | raw


def _seen(seen: Observation) -> dict[str, Any]:
    return {
        "server": str(seen.server), "local": str(seen.local), "public": str(seen.public),
        "rtt_ms": seen.rtt_ms,
    }  # fmt: skip


def ok(id_: str, **more: Any) -> bytes:
    """The final line of any other call, with the keys of that call."""
    return _line({"id": id_, "status": "ok", **more})


def ready(**more: Any) -> bytes:
    """The keys of an answer that is given again and again, spelled once for ok_ready()."""
    return _line(more)


def ok_ready(id_: str, keys: bytes) -> bytes:
    """What ok() says, with keys of ready()."""
    return b'{"id":%b,"status":"ok",%b' % (_encoder.encode(id_), keys[1:])


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
    tries: int = 1
    code: str = ""
    message: str = ""
    cause: dict[str, Any] = {}
    advice: str = ""


_encoder = msgspec.json.Encoder()


def _line(reply: _Reply | dict[str, Any]) -> bytes:
    return _encoder.encode(reply) + b"\n"
