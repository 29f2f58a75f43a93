"""The descriptor: how a host looks from outside, from words to a short line of text and back.
Hostile input: it is parsed strictly, whole or not at all; whether its addresses may be targets is admission's question.

    descriptor = base64url without padding of
        magic "e1" | version u8 | flags u8 | host 4 | made_ms u48 | ttl u8, 0: unknown
        the TCP face, if flagged | the UDP face, if flagged
        checksum 4 bytes BLAKE2s (RFC 7693), against accident only
    flags = 1: TCP face | 2: UDP face | 4, 8: the TCP face's outlives_icmp is no, yes | 16, 32: the UDP face's
    face = local port u16 | public address 4 | public port u16 | mapping u8 | filtering u8 | allocation u8 | step i16
           | count u8 | count times: age_ms u32, since made_ms | local port u16 | public port u16
    filtering = its number | 16, 32: drops_strays is no, yes | 64, 128: forgives is no, yes

All numbers are big-endian. As text it begins with "ZTE", a notification with "cDE". A later version may differ after
the first three bytes only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import struct

from punchd.words.addresses import Endpoint
from punchd.words.errors import Code, RequestError
from punchd.words.nat import SAMPLES_MAX, STEP_MAX, Allocation, Dependence, Descriptor, Face, NatClass, Sample

VERSION = 1
TEXT_MAX = 512
TEXT_START = "ZTE"

_MAGIC = b"e1"
_HEAD = struct.Struct("!2sBB4sHIB")
_FACE = struct.Struct("!H4sHBBBhB")
_SAMPLE = struct.Struct("!IHH")
_CHECKSUM_LEN = 4
_TCP, _UDP = 1, 2
_MORTAL, _OUTLIVES = {_TCP: 4, _UDP: 16}, {_TCP: 8, _UDP: 32}
_DROPS, _FORGIVES = 4, 6  # where the two bits of each lie beside the number of filtering
_TTL_MAX = 64

# Numbers on the wire; a number is never given to another value.
_DEPENDENCES = (Dependence.UNKNOWN, Dependence.INDEPENDENT, Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT)
_ANSWERS = (None, False, True)
_ALLOCATIONS = (Allocation.UNKNOWN, Allocation.PRESERVING, Allocation.SEQUENTIAL, Allocation.RANDOM)


def encode_descriptor(descriptor: Descriptor) -> str:
    """The text that applications deposit and carry."""
    flags = (_TCP if descriptor.tcp else 0) | (_UDP if descriptor.udp else 0)
    for flag, face in ((_TCP, descriptor.tcp), (_UDP, descriptor.udp)):
        if face is not None and face.nat.outlives_icmp is not None:
            flags |= (_OUTLIVES if face.nat.outlives_icmp else _MORTAL)[flag]
    host, made = _packed(descriptor.host), descriptor.made_ms
    body = _HEAD.pack(_MAGIC, VERSION, flags, host, made >> 32, made & 0xFFFFFFFF, descriptor.ttl or 0)
    body += b"".join(_encode_face(face, made) for face in (descriptor.tcp, descriptor.udp) if face is not None)
    return base64.urlsafe_b64encode(body + _checksum(body)).rstrip(b"=").decode("ascii")


def decode_descriptor(text: str) -> Descriptor:
    """The words again. RequestError: bad-value, saying what is wrong with it."""
    data = _decode_text(text)
    if data[:2] == _MAGIC and len(data) > 2 and data[2] != VERSION:
        raise _broken(f"it is of version {data[2]}, this punchd knows version {VERSION}")
    body, checksum = data[:-_CHECKSUM_LEN], data[-_CHECKSUM_LEN:]
    if len(body) < _HEAD.size or body[:2] != _MAGIC:
        raise _broken("it is too short or does not begin as a descriptor")
    if checksum != _checksum(body):
        raise _broken("its checksum is wrong: it was altered on its way")
    _, _, flags, host, made_high, made_low, ttl = _HEAD.unpack_from(body)
    if not _plausible(flags) or ttl > _TTL_MAX:
        raise _broken("it has flags or a TTL that no descriptor has")
    made_ms, offset = made_high << 32 | made_low, _HEAD.size
    faces: dict[int, Face] = {}
    for flag in (_TCP, _UDP):
        if flags & flag:
            faces[flag], offset = _decode_face(body, offset, made_ms, outlives=_outlives(flags, flag))
    if offset != len(body):
        raise _broken("bytes are left over at its end")
    return Descriptor(_address(host), made_ms, faces.get(_TCP), faces.get(_UDP), ttl or None)


def _decode_text(text: str) -> bytes:
    if len(text) > TEXT_MAX or not text.isascii():
        raise _broken(f"it is no base64url text of at most {TEXT_MAX} characters")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _broken("it is not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != text:
        raise _broken("it is not spelled canonically")
    return data


def _encode_face(face: Face, made_ms: int) -> bytes:
    nat = face.nat
    filtering = _DEPENDENCES.index(nat.filtering) | _ANSWERS.index(nat.drops_strays) << _DROPS
    filtering |= _ANSWERS.index(nat.forgives) << _FORGIVES
    head = _FACE.pack(
        face.local_port, _packed(face.public.address), face.public.port, _DEPENDENCES.index(nat.mapping),
        filtering, _ALLOCATIONS.index(nat.allocation), nat.step, len(face.samples),
    )  # fmt: skip
    return head + b"".join(
        _SAMPLE.pack(made_ms - sample.at_ms, sample.local_port, sample.public_port) for sample in face.samples
    )


def _plausible(flags: int) -> bool:
    """At least one face, and of each one answer at most; none of a face that is not there."""
    allowed = sum(flag | _MORTAL[flag] | _OUTLIVES[flag] for flag in (_TCP, _UDP) if flags & flag)
    doubled = any(flags & _MORTAL[flag] and flags & _OUTLIVES[flag] for flag in (_TCP, _UDP))
    return bool(flags & (_TCP | _UDP)) and not flags & ~allowed and not doubled


def _outlives(flags: int, face: int) -> bool | None:
    """None: not known, as in all that were made before anybody measured it."""
    known = flags & (_MORTAL[face] | _OUTLIVES[face])
    return bool(flags & _OUTLIVES[face]) if known else None


def _decode_face(body: bytes, offset: int, made_ms: int, *, outlives: bool | None) -> tuple[Face, int]:
    if len(body) < offset + _FACE.size:
        raise _broken("it ends in the middle of a face")
    local_port, address, port, mapping, filtering, allocation, step, count = _FACE.unpack_from(body, offset)
    offset += _FACE.size
    drops, forgives, filtering = filtering >> _DROPS & 3, filtering >> _FORGIVES, filtering & (1 << _DROPS) - 1
    if mapping >= len(_DEPENDENCES) or filtering >= len(_DEPENDENCES) or allocation >= len(_ALLOCATIONS):
        raise _broken("its NAT class does not exist")
    if drops >= len(_ANSWERS) or forgives >= len(_ANSWERS):
        raise _broken("what its NAT does with strays does not exist")
    nat = NatClass(
        _DEPENDENCES[mapping], _DEPENDENCES[filtering], _ALLOCATIONS[allocation], step, outlives,
        drops_strays=_ANSWERS[drops], forgives=_ANSWERS[forgives],
    )  # fmt: skip
    if (nat.allocation is Allocation.SEQUENTIAL) != (step != 0) or abs(step) > STEP_MAX:
        raise _broken(f"{nat.allocation} ports do not advance by {step}")
    if count > SAMPLES_MAX or len(body) < offset + count * _SAMPLE.size:
        raise _broken(f"it has not the {count} samples that it announces; {SAMPLES_MAX} are allowed")
    samples = []
    for _ in range(count):
        age_ms, own, public_port = _SAMPLE.unpack_from(body, offset)
        samples.append(Sample(made_ms - age_ms, own, public_port))
        offset += _SAMPLE.size
    ports = (local_port, port, *(n for sample in samples for n in (sample.local_port, sample.public_port)))
    if not all(ports):
        raise _broken("it names port 0")
    times = [sample.at_ms for sample in samples]
    if times != sorted(times) or (times and times[0] < 0):
        raise _broken("its samples are not in the order of time")
    return Face(local_port, Endpoint(_address(address), port), nat, tuple(samples)), offset


def _packed(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def _address(packed: bytes) -> str:
    return str(ipaddress.IPv4Address(packed))


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_LEN, person=b"punchd-e").digest()


def _broken(why: str) -> RequestError:
    return RequestError(
        Code.BAD_VALUE, f"the descriptor can't be read: {why}",
        advice="pass on the `descriptor` of the peer's `endpoint` call, unaltered",
    )  # fmt: skip
