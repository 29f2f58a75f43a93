"""One line of the Unix-socket API to one request word: the caller's half of PROTOCOL.md.
It refuses to decide anything: whether an id is free or a target allowed is the daemon's question.

A good line costs one typed decode. Only a line that fails it, or looks as if a key occurred twice, is read
again slowly, to say in a caller's words what is wrong and to find the id that the error must carry.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta, Struct

from punchd.wire.descriptor import TEXT_START, decode_descriptor
from punchd.words.errors import Code, RequestError
from punchd.words.requests import (
    ENDPOINT_TIMEOUT_MS,
    ID_MAX_LEN,
    SECRET_MAX_LEN,
    SECRET_MIN_LEN,
    SERVERS_MAX,
    SIDE_DELAY_MAX_MS,
    TIMEOUT_MAX_MS,
    TIMEOUT_MS,
    Cancel,
    FindEndpoint,
    Initiate,
    Notify,
    Ping,
    Place,
    Request,
    Respond,
    Status,
    Transport,
)

LINE_MAX_LEN = 65_536
"""Bytes of one line, its newline included."""

LIST_MAX_LEN = 64


class Refusal(msgspec.Struct, frozen=True):
    """A line that is no request: what to answer, and under which id.

    Seen by the collector: an error knows the frames that it came through, and one of these knows the refusal.
    """

    id: str | None
    error: RequestError


def decode_request(line: bytes) -> Request | Refusal:
    """Read one line, with or without its newline."""
    if len(line) > LINE_MAX_LEN:
        return Refusal(None, line_too_long())
    try:
        parsed = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _explain(line)
    if _may_repeat_a_key(line, type(parsed)):
        return _explain(line)
    try:
        return parsed.build()
    except RequestError as error:
        return Refusal(_readable_id(parsed.id), error)


def line_too_long() -> RequestError:
    return RequestError(Code.LINE_TOO_LONG, f"the line has more than {LINE_MAX_LEN} bytes; it was skipped")


def descriptor_refused() -> RequestError:
    return RequestError(Code.DESCRIPTOR_REFUSED, "a descriptor came with the input; it was closed")


# What each key may hold. The descriptions end the sentence "... must be".

_ID_EXPECTED = f"a string of 1 to {ID_MAX_LEN} bytes"
_Id = Annotated[str, Meta(min_length=1, max_length=ID_MAX_LEN, description=_ID_EXPECTED)]
_Places = Annotated[
    str | Annotated[list[str], Meta(min_length=1, max_length=LIST_MAX_LEN)],
    Meta(description='"198.51.100.2", "198.51.100.2:22168", a descriptor, or a list of 1 to 64 such strings'),
]
_Prefixes = Annotated[
    list[str],
    Meta(
        max_length=LIST_MAX_LEN,
        description='a list of up to 64 strings like "198.51.100.2" or "198.51.100.0/24"',
    ),
]
_Technique = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,31}$")]
_Techniques = Annotated[
    str | Annotated[list[_Technique], Meta(min_length=1, max_length=LIST_MAX_LEN)],
    Meta(description='"auto" or a list of names of techniques'),
]
_Transport = Annotated[Transport, Meta(description='"tcp" or "udp"')]
_Servers = Annotated[
    list[str],
    Meta(max_length=SERVERS_MAX, description=f'a list of up to {SERVERS_MAX} strings like "198.51.100.2:3478"'),
]
_Scope = Annotated[Literal["tcp", "udp", "both"], Meta(description='"tcp", "udp" or "both"')]
_Timeout = Annotated[int, Meta(ge=1, le=TIMEOUT_MAX_MS, description=f"a whole number of ms from 1 to {TIMEOUT_MAX_MS}")]
_SideDelay = Annotated[
    float, Meta(ge=0, le=SIDE_DELAY_MAX_MS, description=f"a number of ms from 0 to {SIDE_DELAY_MAX_MS}")
]
_Flag = Annotated[bool, Meta(description="true or false")]
_Secret = Annotated[str, Meta(description=f"a string of {SECRET_MIN_LEN} to {SECRET_MAX_LEN} bytes")]
_Notification = Annotated[str, Meta(min_length=1, description="the text that the peer's punchd gave out")]

_Descriptor = Annotated[str, Meta(min_length=1, description="the descriptor that the peer's punchd gave out")]


class _Line(Struct, tag_field="call", forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    id: _Id


class _Initiate(_Line, tag="initiate"):
    peer: _Places
    self_: _Places | None = msgspec.field(default=None, name="self")
    transport: _Transport = Transport.TCP
    techniques: _Techniques = "auto"
    timeout_ms: _Timeout = TIMEOUT_MS
    early: _Flag = False
    secret: _Secret | None = None
    side_delay_ms: _SideDelay | None = None

    def build(self) -> Initiate:
        return Initiate(
            id=_id(self.id),
            peer=_places("peer", self.peer),
            self_=() if self.self_ is None else _places("self", self.self_),
            transport=self.transport,
            techniques=_techniques(self.techniques),
            timeout_ms=self.timeout_ms,
            early=self.early,
            secret=_secret(self.secret),
            side_delay_ms=self.side_delay_ms,
        )


class _Respond(_Line, tag="respond"):
    notification: _Notification
    from_: _Prefixes = msgspec.field(default_factory=list, name="from")
    timeout_ms: _Timeout = TIMEOUT_MS
    early: _Flag = False
    secret: _Secret | None = None

    def build(self) -> Respond:
        return Respond(
            id=_id(self.id),
            notification=self.notification,
            from_=tuple(_prefix(text) for text in self.from_),
            timeout_ms=self.timeout_ms,
            early=self.early,
            secret=_secret(self.secret),
        )


class _Notify(_Line, tag="notify"):
    attempt: _Id
    notification: _Notification

    def build(self) -> Notify:
        return Notify(id=_id(self.id), attempt=self.attempt, notification=self.notification)


class _Endpoint(_Line, tag="endpoint"):
    servers: _Servers = msgspec.field(default_factory=list)
    transport: _Scope = "both"
    timeout_ms: _Timeout = ENDPOINT_TIMEOUT_MS
    keep: _Flag = False
    peer: _Descriptor | None = None

    def build(self) -> FindEndpoint:
        return FindEndpoint(
            id=_id(self.id),
            servers=_places("servers", self.servers),
            transports=tuple(Transport) if self.transport == "both" else (Transport(self.transport),),
            timeout_ms=self.timeout_ms,
            keep=self.keep,
            peer=self.peer,
        )


class _Cancel(_Line, tag="cancel"):
    attempt: _Id

    def build(self) -> Cancel:
        return Cancel(id=_id(self.id), attempt=self.attempt)


class _Status(_Line, tag="status"):
    def build(self) -> Status:
        return Status(id=_id(self.id))


class _Ping(_Line, tag="ping"):
    def build(self) -> Ping:
        return Ping(id=_id(self.id))


_AnyLine = _Initiate | _Respond | _Notify | _Endpoint | _Cancel | _Status | _Ping
_CALLS: dict[str, type[_AnyLine]] = {
    "initiate": _Initiate,
    "respond": _Respond,
    "notify": _Notify,
    "endpoint": _Endpoint,
    "cancel": _Cancel,
    "status": _Status,
    "ping": _Ping,
}
_decoder: msgspec.json.Decoder[_AnyLine] = msgspec.json.Decoder(_AnyLine)


class _Key(msgspec.Struct, frozen=True, gc=False):
    name: str
    required: bool
    type: Any
    expected: str


@cache  # and not before a line needs an explanation: to look at all of them takes 10 ms
def _keys(line: type[_AnyLine]) -> tuple[_Key, ...]:
    info = msgspec.inspect.type_info(line)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(
        _Key(field.encode_name, field.required, declared.type, _description(field.type))
        for field, declared in zip(info.fields, msgspec.structs.fields(line), strict=True)
    )


def _description(kind: msgspec.inspect.Type) -> str:
    """The Meta description, also when the key may be absent and so is a union with None."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return str((kind.extra_json_schema or {})["description"])
    assert isinstance(kind, msgspec.inspect.UnionType), kind
    return next(_description(member) for member in kind.types if isinstance(member, msgspec.inspect.Metadata))


_LITERALS = {
    line: tuple(f'"{name}"'.encode() for name in ("call", *line.__struct_encode_fields__)) for line in _CALLS.values()
}


def _may_repeat_a_key(line: bytes, kind: type[_AnyLine]) -> bool:
    """The typed decode keeps the last of two equal keys. Two such keys need equal literals or an escape."""
    return b"\\" in line or max(map(line.count, _LITERALS[kind])) > 1


def _explain(line: bytes) -> Request | Refusal:
    """The slow second look: name the first thing that is wrong, in the order in which a person would."""
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            names = [name for name, _ in items]
            repeated.extend(name for name in found if names.count(name) > 1)
        return found

    try:
        value = json.loads(line.decode(), object_pairs_hook=pairs, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return Refusal(None, RequestError(Code.BAD_JSON, f"byte {error.start} of the line is not UTF-8"))
    except RecursionError:
        return Refusal(None, RequestError(Code.BAD_JSON, "the line is nested too deeply"))
    except ValueError as error:
        return Refusal(None, RequestError(Code.BAD_JSON, f"the line is not JSON: {_short(str(error), 120)}"))
    if not isinstance(value, dict):
        return Refusal(None, RequestError(Code.BAD_JSON, f"the line is not a JSON object but {_show(value)}"))
    id_ = None if "id" in repeated else _readable_id(value.get("id"))
    try:
        return _check(value, repeated)
    except RequestError as error:
        return Refusal(id_, error)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: dict[str, Any], repeated: list[str]) -> Request:
    if repeated:
        name = repeated[0]
        raise RequestError(Code.BAD_JSON, f"key {_show(name)} occurs twice", cause={"key": _clean(name)})
    if "id" not in value:
        raise _missing("id")
    if "call" not in value:
        raise _missing("call")
    call = value["call"]
    kind = _CALLS.get(call) if isinstance(call, str) else None
    if kind is None:
        raise RequestError(
            Code.UNKNOWN_CALL,
            f"there is no call {_show(call)}",
            advice=f"the calls are {', '.join(_CALLS)}",
            cause={"key": "call"},
        )
    keys = _keys(kind)
    unknown = [name for name in value if name != "call" and name not in {key.name for key in keys}]
    if unknown:
        raise RequestError(
            Code.UNKNOWN_KEY,
            f"{call} has no key {', '.join(_show(name) for name in unknown[:8])}",
            advice=f"the keys of {call} are {', '.join(key.name for key in keys)}",
            cause={"key": _clean(unknown[0])},
        )
    for key in keys:
        if key.name not in value:
            if key.required:
                raise _missing(key.name)
            continue
        try:
            msgspec.convert(value[key.name], key.type)
        except msgspec.ValidationError:
            raise _bad_value(key.name, key.expected, value[key.name]) from None
    try:
        parsed = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RequestError(Code.BAD_VALUE, _short(str(error), 200)) from None
    return parsed.build()


def _missing(key: str) -> RequestError:
    return RequestError(Code.MISSING_KEY, f"the key '{key}' is missing", cause={"key": key})


def _bad_value(key: str, expected: str, got: object) -> RequestError:
    message = f"'{key}' must be {expected}; it is {_show(got)}"
    return RequestError(Code.BAD_VALUE, message, cause={"key": key, "expected": expected})


def _readable_id(value: object) -> str | None:
    """An id that a reply can carry; a lone surrogate cannot be written in UTF-8."""
    if not isinstance(value, str) or not value or len(value) > ID_MAX_LEN:
        return None
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        return None
    return value if len(encoded) <= ID_MAX_LEN else None


def _id(value: str) -> str:
    if not value.isascii() and _readable_id(value) is None:
        raise _bad_value("id", _ID_EXPECTED, value)
    return value


def _places(key: str, value: str | list[str]) -> tuple[Place, ...]:
    return (_place(key, value),) if isinstance(value, str) else tuple(_place(key, text) for text in value)


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLACE = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}})(?::([1-9][0-9]{{0,4}}))?")


@lru_cache(maxsize=256)
def _place(key: str, text: str) -> Place:
    if text.startswith(TEXT_START) and key in _DESCRIBED:
        return _described(key, text)
    found = _PLACE.fullmatch(text)
    if found is None:
        expected = "an IPv4 address, with or without a port, as in 198.51.100.2:22168"
        raise _bad_value(key, f"{expected}, or a descriptor" if key in _DESCRIBED else expected, text)
    address, port = found.groups()
    if port is None:
        return Place(address)
    if int(port) > 65535:
        raise _bad_value(key, "an address whose port, if it has one, is from 1 to 65535", text)
    return Place(address, int(port))


_DESCRIBED = {"peer", "self"}


def _described(key: str, text: str) -> Place:
    try:
        descriptor = decode_descriptor(text)
    except RequestError as error:
        raise RequestError(error.code, f"'{key}': {error.message}", advice=error.advice, cause={"key": key}) from error
    face = descriptor.tcp or descriptor.udp
    assert face is not None
    return Place(face.public.address, descriptor=descriptor)


def _prefix(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        raise _bad_value("from", "an address or a prefix without host bits, as in 198.51.100.0/24", text) from None


def _techniques(value: str | list[str]) -> tuple[str, ...]:
    if isinstance(value, list):
        if len(set(value)) < len(value):
            raise _bad_value("techniques", "a list that names each technique once", value)
        return tuple(value)
    if value != "auto":
        raise _bad_value("techniques", '"auto" or a list of names of techniques', value)
    return ()


def _secret(value: str | None) -> bytes | None:
    if value is None:
        return None
    try:
        secret = value.encode()
    except UnicodeEncodeError:
        secret = b""
    if not SECRET_MIN_LEN <= len(secret) <= SECRET_MAX_LEN:
        message = f"'secret' must have {SECRET_MIN_LEN} to {SECRET_MAX_LEN} bytes; it has {len(secret)}"
        raise RequestError(Code.BAD_VALUE, message, cause={"key": "secret"})
    return secret


def _show(value: object) -> str:
    """A value as the caller wrote it, shortened, and safe to put into a reply."""
    return _short(_clean(json.dumps(value, ensure_ascii=False)), 80)


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
