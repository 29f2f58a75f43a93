"""From the places that a caller names to what the plan knows of a side.
Trusts no descriptor: it was made by the peer, or by whoever stands between; what does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from punchd.words.addresses import PortRange, why_no_target
from punchd.words.errors import Code, RequestError
from punchd.words.nat import Allocation, Dependence, Descriptor, Face
from punchd.words.plan import View
from punchd.words.requests import Place

SKEW_MS = 60_000
"""How far the clocks of two hosts may be apart."""

_LOWEST_PORT = 1024
_UNKNOWN = View()


def usable(
    key: str, places: Sequence[Place], transport: str, *, ports: PortRange, now_ms: float, allow_private: bool
) -> list[Place]:
    """The places that nothing speaks against. RequestError: there is none; it says what is wrong with the first.

    ports  where both hosts punch from
    """
    errors: list[RequestError] = []
    good: list[Place] = []
    for place in places:
        try:
            _check(key, place, transport, ports=ports, now_ms=now_ms, allow_private=allow_private)
        except RequestError as error:
            errors.append(error)
        else:
            good.append(place)
    if not good:
        raise errors[0]
    return good


def address(place: Place, transport: str) -> str:
    """Where it is, over this transport."""
    face = _face(place, transport)
    return place.address if face is None else face.public.address


def view(place: Place | None, transport: str) -> View:
    """What it says of the NAT and of a mapping that is there already."""
    if place is None:
        return _UNKNOWN
    if place.descriptor is None:
        return View(own_port=place.port, public_port=place.port) if place.port else _UNKNOWN
    face, other = _face(place, transport), _face(place, "udp" if transport == "tcp" else "tcp")
    if face is None:
        return _UNKNOWN
    nat, kept = face.nat, face.local_port == face.public.port
    if nat.allocation is Allocation.PRESERVING or (kept and nat.allocation is Allocation.UNKNOWN):
        return View(nat)
    if nat.mapping is Dependence.INDEPENDENT:
        return View(nat, own_port=face.local_port, public_port=face.public.port)
    if nat.allocation is Allocation.UNKNOWN:
        nat = replace(nat, allocation=Allocation.RANDOM)  # it changes, and nobody knows how
    return View(nat, face=face, other=other)


def _face(place: Place, transport: str) -> Face | None:
    if place.descriptor is None:
        return None
    return place.descriptor.tcp if transport == "tcp" else place.descriptor.udp


def _check(
    key: str, place: Place, transport: str, *, ports: PortRange, now_ms: float, allow_private: bool
) -> None:  # fmt: skip
    at = address(place, transport)
    reason = why_no_target(at, allow_private=allow_private)
    if reason is not None and key == "self":
        raise RequestError(
            Code.BAD_VALUE, f"self: {at} is {reason}; the peer could not send there",
            advice="give `self`, this host's public address as the rendezvous server sees it",
        )  # fmt: skip
    if reason is not None:
        raise RequestError(Code.TARGET_REFUSED, f"{key}: {at} is {reason}; nothing is sent there")
    if place.port is not None and place.port not in ports:
        raise _lies(key, f"port {place.port} is outside of the punch range {ports}, so no punchd opens it")
    if place.descriptor is not None:
        _check_descriptor(key, place.descriptor, ports=ports, now_ms=now_ms, allow_private=allow_private)


def _check_descriptor(
    key: str, descriptor: Descriptor, *, ports: PortRange, now_ms: float, allow_private: bool
) -> None:  # fmt: skip
    if descriptor.made_ms > now_ms + SKEW_MS:
        ahead_s = round((descriptor.made_ms - now_ms) / 1000)
        raise _lies(key, f"the descriptor was made {ahead_s} s from now; is the clock right on both hosts?")
    reason = why_no_target(descriptor.host, allow_private=True)
    if reason is not None:
        raise _lies(key, f"the descriptor's host, {descriptor.host}, is {reason}")
    for face in (descriptor.tcp, descriptor.udp):
        if face is not None:
            _check_face(key, face, ports=ports, allow_private=allow_private)


def _check_face(key: str, face: Face, *, ports: PortRange, allow_private: bool) -> None:
    reason = why_no_target(face.public.address, allow_private=allow_private)
    if reason is not None:
        raise _lies(key, f"the descriptor's public address, {face.public.address}, is {reason}")
    for port in (face.local_port, *(sample.local_port for sample in face.samples)):
        if port not in ports:
            raise _lies(key, f"the descriptor's local port {port} is outside of the punch range {ports}")
    for port in (face.public.port, *(sample.public_port for sample in face.samples)):
        if port < _LOWEST_PORT:
            raise _lies(key, f"the descriptor's public port {port} is below {_LOWEST_PORT}")


def _lies(key: str, why: str) -> RequestError:
    return RequestError(
        Code.BAD_VALUE, f"{key}: {why}; nothing was sent", cause={"key": key},
        advice="have the peer's `endpoint` called again, or give its address alone",
    )  # fmt: skip
