"""From what servers saw to a NAT's class: mapping, filtering and port allocation by RFC 4787.
Sends nothing and guesses nothing: what the observations do not settle is `unknown`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import gcd

from msgspec.structs import replace

from punchd.words.addresses import Endpoint
from punchd.words.nat import STEP_MAX, Allocation, Dependence, Sample
from punchd.words.probing import Finding, Observation

_RUN_MAX = 2000  # steps between two samples, fans of our own among them; ports drawn at random are not that near thrice
_SEQUENCE_MIN = 3  # samples; two say nothing about a step


def mapping(observations: Sequence[Observation]) -> Dependence:
    """From observations of one local port by several server endpoints (RFC 5780, section 4.3).

    Where only addresses were compared and they differ, ports are taken to matter as well: to a punch it is one.
    """
    by_server = {seen.server: seen.public for seen in observations}
    if not by_server:
        return Dependence.UNKNOWN
    if all(seen.public == seen.local for seen in observations):
        return Dependence.INDEPENDENT  # nothing is translated
    by_address: dict[str, set[Endpoint]] = {}
    for server, public in by_server.items():
        by_address.setdefault(server.address, set()).add(public)
    if any(len(publics) > 1 for publics in by_address.values()):
        return Dependence.ADDRESS_AND_PORT
    if len(by_address) < 2:
        return Dependence.UNKNOWN
    if len(set(by_server.values())) == 1:
        return Dependence.INDEPENDENT
    ports_compared = len(by_server) > len(by_address)
    return Dependence.ADDRESS if ports_compared else Dependence.ADDRESS_AND_PORT


def filtering(*, other_address: bool | None, other_port: bool | None) -> Dependence:
    """From the answers to the two CHANGE-REQUESTs (RFC 5780, section 4.4); None: not asked, or not settled.

    Silence is to be counted only of a place that answers a plain request.
    """
    if other_address:
        return Dependence.INDEPENDENT
    if other_port:
        return Dependence.ADDRESS
    return Dependence.UNKNOWN if other_port is None else Dependence.ADDRESS_AND_PORT


def strays(*, refused: bool | None, heard: bool | None) -> tuple[bool | None, bool | None]:
    """Whether the NAT drops strays in silence, and whether it forgives who sent them; None: not settled.

    refused  one of them came back to its sender as an error
    heard    the sender was heard afterwards
    """
    if refused or heard is False:
        return False, heard
    return (True if heard and refused is False else None), heard


def wary(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of all transports: where one tells of a NAT that blocks, it is taken to where another doesn't know.

    The strays of the quicker one have got the server's second address blocked before the other could ask it.
    """
    if not any(finding.face is not None and finding.face.nat.forgives is False for finding in findings):
        return list(findings)
    return [
        replace(one, face=replace(one.face, nat=replace(one.face.nat, drops_strays=False, forgives=False)))
        if one.face is not None and one.face.nat.forgives is None
        else one
        for one in findings
    ]


def allocation(samples: Sequence[Sample]) -> tuple[Allocation, int]:
    """The kind of allocation and its step, from samples in the order of time, each a mapping of its own."""
    if not samples:
        return Allocation.UNKNOWN, 0
    kept = sum(sample.public_port == sample.local_port for sample in samples)
    if kept * 2 >= len(samples):
        return Allocation.PRESERVING, 0  # the others' ports were taken already
    ports = [sample.public_port for sample in samples if sample.public_port != sample.local_port]
    if len(ports) < _SEQUENCE_MIN:
        return Allocation.UNKNOWN, 0
    step = _step([later - earlier for earlier, later in pairwise(ports)])
    return (Allocation.SEQUENTIAL, step) if step else (Allocation.RANDOM, 0)


def distinct(observations: Iterable[Observation]) -> list[Observation]:
    """The first observation of each mapping, in the order given: what several servers see was made once."""
    found: dict[tuple[int, Endpoint], Observation] = {}
    for seen in observations:
        found.setdefault((seen.local.port, seen.public), seen)
    return list(found.values())


def _step(gaps: list[int]) -> int:
    """The step behind the gaps between successive ports, 0 if there is none.

    Other hosts' mappings make a gap a multiple of the step, and at the end of its range the NAT begins anew: one
    gap may fall out of line.
    """
    for sign in (1, -1):
        forward = [gap * sign for gap in gaps if gap * sign > 0]
        wraps = len(gaps) - len(forward)
        if not forward or wraps > (1 if len(gaps) > _SEQUENCE_MIN else 0):
            continue
        step = gcd(*forward)
        if step <= STEP_MAX and max(forward) <= step * _RUN_MAX:
            return step * sign
    return 0
