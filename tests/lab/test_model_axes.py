"""The theory at the head of core/attempt.py holds behind any NAT that the axes can describe, not only behind kinds.

It refuses to ask whether a punch succeeds: behind most of these boxes none can. It asks what success then means.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from test_agreement import Judge, schedules

from punchd.lab.model import World
from punchd.lab.model_kinds import Axes, By, Ending, Hairpin, Kind, Odd, Pickup, Ports, Say, Stray, Timers, Tracking


def boxes() -> st.SearchStrategy[Kind]:
    """Every axis drawn by itself."""
    by, endings, say = st.sampled_from(By), st.sampled_from(Ending), st.sampled_from(Say)
    ports = st.sampled_from([Ports.PRESERVED, Ports.PRESERVED, *Ports])
    axes = st.builds(Axes, mapping=by, filtering=by, ports=ports, occupies=st.booleans())
    life_s = st.sampled_from([30.0, 120.0, 7440.0])  # nobody forgets earlier than this (techniques, section 3)
    return st.builds(
        Kind,
        name=st.just("drawn"),
        tracking=st.sampled_from([Tracking.HOLES, Tracking.CONNTRACK]),
        tcp=axes,
        udp=axes,
        step=st.sampled_from([1, -1, 2, 256]),
        foreign=st.sampled_from([0.0, 20.0]),
        stray=st.sampled_from(Stray),
        pickup=st.sampled_from(Pickup),
        rst=endings,
        rst_out=endings,
        icmp=endings,
        odd=st.builds(Odd, syn_in=say, syn_ack_out=say, ack_out=say, syn_ack_in=say, new_number=say),
        liberal=st.booleans(),
        rewrites=st.sampled_from([False, False, True]),
        hairpin=st.sampled_from([Hairpin.EXTERNAL, Hairpin.EXTERNAL, *Hairpin]),
        timers=st.builds(Timers, hole_tcp=life_s, hole_udp=life_s, udp_unreplied=life_s, syn=life_s),
    )


def sides() -> st.SearchStrategy[Any]:
    """One to three boxes in a row."""
    return boxes() | st.lists(boxes(), min_size=1, max_size=3)


@given(schedules(kind_a=sides(), kind_b=sides()))
def test_both_sides_end_with_the_same_connection_behind_any_box(setting: dict[str, Any]) -> None:
    """One connection or none, and what both have carries data: nobody is proven who can't hear."""
    assert [] == Judge(setting).run().complaints


@given(schedules(kind_a=sides(), shared=st.just(True)))
def test_both_sides_end_with_the_same_connection_behind_one_box(setting: dict[str, Any]) -> None:
    """Two hosts of one home, or of one carrier's, whatever its hairpinning: primers may well reach the peer here."""
    setting["kind_b"] = setting["kind_a"]
    assert [] == Judge(setting).run().complaints


@given(schedules(kind_a=sides(), kind_b=sides(), transport=st.just("udp"), techniques=st.just(["udp"])))
def test_datagrams_agree_behind_any_box(setting: dict[str, Any]) -> None:
    """The same without a kernel that answers by itself."""
    assert [] == Judge(setting).run().complaints


@given(
    st.fixed_dictionaries(
        {
            "kind_a": sides(), "kind_b": sides(), "seed": st.integers(0, 2**32 - 1),
            "techniques": st.none() | st.sampled_from([["tcp-midstream"], ["tcp-simopen"], ["tcp-syni"]]),
            "hole_ttl": st.sampled_from([2, 3, 4]), "side_delay_ms": st.sampled_from([0.0, 50.0, 2000.0]),
        }
    )
)  # fmt: skip
def test_the_initiator_is_never_alone_with_a_connection(setting: dict[str, Any]) -> None:
    """It hands over what the responder chose, so without loss its word means that data passes both ways.

    The responder may be alone: a box can let its first answer out and nothing after it, or let the error of a late
    primer end the mapping just proven. Both were drawn here.
    """
    result = World(**setting).run()
    if result.a.ok:
        assert (True, True) == (result.b.ok, result.exchanged)
