"""Claims about core/classify.py: verdicts follow from the observations, and from nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.core.classify import allocation, distinct, filtering, mapping, strays, wary
from punchd.words.addresses import Endpoint
from punchd.words.nat import STEP_MAX, Allocation, Dependence, Face, NatClass, Sample
from punchd.words.probing import Finding, Observation

LOCAL = Endpoint("10.0.1.2", 22000)


def seen(
    server: str, public_port: int, *, local: Endpoint = LOCAL, address: str = "203.0.113.2", at_ms: int = 0
) -> Observation:
    return Observation("udp", Endpoint.parse(server), local, Endpoint(address, public_port), at_ms, 1.0)


def samples(*ports: int) -> list[Sample]:
    return [Sample(at, 22000 + at, port) for at, port in enumerate(ports)]


@pytest.mark.parametrize(
    ("ports", "verdict"),
    [
        ([], Dependence.UNKNOWN),
        ([("192.0.2.10:1", 5)], Dependence.UNKNOWN),
        ([("192.0.2.10:1", 5), ("192.0.2.10:2", 5)], Dependence.UNKNOWN),
        ([("192.0.2.10:1", 5), ("192.0.2.11:1", 5)], Dependence.INDEPENDENT),
        ([("192.0.2.10:1", 5), ("192.0.2.10:2", 6)], Dependence.ADDRESS_AND_PORT),
        ([("192.0.2.10:1", 5), ("192.0.2.11:1", 6)], Dependence.ADDRESS_AND_PORT),
        ([("192.0.2.10:1", 5), ("192.0.2.10:2", 5), ("192.0.2.11:1", 6)], Dependence.ADDRESS),
        ([("192.0.2.10:1", 5), ("192.0.2.10:2", 6), ("192.0.2.11:1", 5)], Dependence.ADDRESS_AND_PORT),
    ],
)
def test_mapping_follows_from_what_was_compared(ports: list[tuple[str, int]], verdict: Dependence) -> None:
    """Unknown where nothing was compared; the worse where two could not be told apart."""
    assert verdict is mapping([seen(server, port) for server, port in ports])


def test_another_public_address_is_another_mapping() -> None:
    """A carrier that pools addresses arbitrarily is no endpoint-independent NAT, whatever its ports."""
    pooled = [seen("192.0.2.10:1", 5), seen("192.0.2.11:1", 5, address="203.0.113.3")]
    assert Dependence.ADDRESS_AND_PORT is mapping(pooled)


@pytest.mark.parametrize(
    ("other_address", "other_port", "verdict"),
    [
        (True, True, Dependence.INDEPENDENT),
        (True, None, Dependence.INDEPENDENT),
        (True, False, Dependence.INDEPENDENT),
        (False, True, Dependence.ADDRESS),
        (None, True, Dependence.ADDRESS),
        (False, False, Dependence.ADDRESS_AND_PORT),
        (None, False, Dependence.ADDRESS_AND_PORT),
        (False, None, Dependence.UNKNOWN),
        (None, None, Dependence.UNKNOWN),
    ],
)
def test_filtering_follows_from_who_was_let_in(
    other_address: bool | None, other_port: bool | None, verdict: Dependence
) -> None:
    """The widest gap that anybody came through counts, and what was not asked is not known."""
    assert verdict is filtering(other_address=other_address, other_port=other_port)


@pytest.mark.parametrize(
    ("refused", "heard", "verdict"),
    [
        (None, None, (None, None)),
        (None, True, (None, True)),
        (None, False, (False, False)),
        (False, None, (None, None)),
        (False, True, (True, True)),
        (False, False, (False, False)),
        (True, None, (False, None)),
        (True, True, (False, True)),
    ],
)
def test_strays_are_dropped_where_their_sender_gets_neither_an_answer_nor_a_punishment(
    refused: bool | None, heard: bool | None, verdict: tuple[bool | None, bool | None]
) -> None:
    """Silence alone is no harmlessness: a NAT that blocks is silent, too."""
    assert verdict == strays(refused=refused, heard=heard)


@pytest.mark.parametrize(
    ("known", "other", "verdict"),
    [
        (False, None, (False, False)),
        (False, True, (None, True)),
        (True, None, (None, None)),
        (None, None, (None, None)),
    ],
)
def test_a_nat_that_blocks_over_one_transport_is_taken_to_over_the_other(
    known: bool | None, other: bool | None, verdict: tuple[bool | None, bool | None]
) -> None:
    """Too wary costs a second message; what was measured stands. Nobody is taken for kind on another's word."""
    faces = [Face(22000, Endpoint("203.0.113.2", 22000), NatClass(forgives=each)) for each in (known, other)]
    nothing = Finding("tcp", None, (), ())
    first, second, third = wary([Finding("udp", faces[0], (), ()), Finding("tcp", faces[1], (), ()), nothing])
    assert Finding("udp", faces[0], (), ()) == first
    assert nothing == third
    assert second.face is not None
    assert verdict == (second.face.nat.drops_strays, second.face.nat.forgives)


@pytest.mark.parametrize(
    ("ports", "verdict"),
    [
        ([], (Allocation.UNKNOWN, 0)),
        ([40000], (Allocation.UNKNOWN, 0)),
        ([40000, 40001], (Allocation.UNKNOWN, 0)),
        ([40000, 40001, 40002], (Allocation.SEQUENTIAL, 1)),
        ([40000, 40003, 40004, 40009], (Allocation.SEQUENTIAL, 1)),
        ([40000, 40004, 40006], (Allocation.SEQUENTIAL, 2)),
        ([40000, 39998, 39992, 39990], (Allocation.SEQUENTIAL, -2)),
        ([65534, 65535, 1024, 1025, 1026], (Allocation.SEQUENTIAL, 1)),
        ([65000, 65256, 1001, 1257, 1513], (Allocation.SEQUENTIAL, 256)),
        ([40000, 1200, 61000, 1024], (Allocation.RANDOM, 0)),
        ([22000, 22001, 22002], (Allocation.PRESERVING, 0)),
        ([22000, 22001, 51234], (Allocation.PRESERVING, 0)),
    ],
)
def test_allocation_follows_from_the_ports_in_time(ports: list[int], verdict: tuple[Allocation, int]) -> None:
    """Local ports are 22000, 22001, ...; a kept port among taken ones is still the NAT's habit."""
    assert verdict == allocation(samples(*ports))


@given(seed=st.integers(0, 2**32))
def test_random_ports_are_not_taken_for_a_sequence(seed: int) -> None:
    """Prediction behind a random NAT is a flood for nothing."""
    dice = random.Random(seed)
    assert Allocation.RANDOM is allocation(samples(*(dice.randrange(1024, 65536) for _ in range(9))))[0]


@given(st.integers(1, STEP_MAX), st.sampled_from([1, -1]), st.lists(st.integers(1, 6), min_size=6, max_size=9))
def test_step_divides_what_lies_between(step: int, sign: int, jumps: list[int]) -> None:
    """However busy the NAT is, foreign mappings come in whole steps."""
    ports = [32000]
    for jump in [1, *jumps]:
        ports.append(ports[-1] + jump * step * sign)
    found = allocation(samples(*ports))
    assert (Allocation.SEQUENTIAL, step * sign) == found


def test_mapping_that_several_servers_see_is_one_sample() -> None:
    """Counted twice, an endpoint-independent NAT looks as if it had step 0."""
    other = Endpoint(LOCAL.address, 22001)
    observations = [
        seen("192.0.2.10:1", 5, at_ms=3),
        seen("192.0.2.10:1", 9, at_ms=5, local=other),
        seen("192.0.2.11:1", 5, at_ms=7),
    ]
    assert [3, 5] == [one.at_ms for one in distinct(observations)]
