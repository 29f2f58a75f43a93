"""The modelled NAT's axes, one by one and in mixtures that no kernel kind has, in virtual time.

It refuses to repeat what test_kinds.py and test_kinds_axes.py ask of both halves of the lab.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from street_model import TCP, UDP, ModelFlow, ModelStreet

from punchd.lab.model import World
from punchd.lab.model_kinds import KINDS, Axes, By, Ending, Kind, Pickup, Ports, Stray, Timers, Tracking, layers
from punchd.lab.pages import KINDS as PAGES
from punchd.words.events import ACK, RST, SYN

HOLES = Kind("holes", Tracking.HOLES)
FIRST = {TCP: SYN, UDP: 0}
BOTH = pytest.mark.parametrize("protocol", [TCP, UDP])


def of(kind: Kind, **axes: object) -> ModelStreet:
    """A street behind this kind with other axes."""
    return ModelStreet.of(replace(kind, **axes))  # names are checked by replace itself


def opened(street: ModelStreet, protocol: int = TCP) -> ModelFlow:
    """A flow whose first packet has left."""
    flow = street.flow(protocol)
    assert flow.out(FIRST[protocol]) is not None
    return flow


def test_each_page_has_its_kind_and_no_other() -> None:
    """A cell must be called the same in both halves."""
    assert set(PAGES) == set(KINDS)


@BOTH
@pytest.mark.parametrize("by", list(By))
def test_filtering_lets_in_whom_it_minds_not(by: By, protocol: int) -> None:
    """RFC 4787, section 5: by nothing, by address, by address and port, behind one mapping for all."""
    axes = Axes(mapping=By.NOTHING, filtering=by)
    flow = opened(of(HOLES, tcp=axes, udp=axes), protocol)
    let_in = [each.back(FIRST[protocol]) is not None for each in (flow.other_address(), flow.other_port(), flow)]
    assert {By.NOTHING: [True] * 3, By.ADDRESS: [False, True, True], By.ADDRESS_AND_PORT: [False, False, True]}[
        by
    ] == let_in


@pytest.mark.parametrize("by", list(By))
@pytest.mark.parametrize("ports", [Ports.RANDOM, Ports.SEQUENTIAL])
def test_mapping_is_a_new_port_for_whom_it_minds(by: By, ports: Ports) -> None:
    """RFC 4787, section 4.1, with ports that tell mappings apart."""
    flow = opened(of(KINDS["linux"], udp=Axes(mapping=by, ports=ports)), UDP)
    others = [flow.other_port(), flow.other_address()]
    for other in others:
        other.out()
    same = [flow.mapped == other.mapped for other in others]
    expected = {By.NOTHING: [True, True], By.ADDRESS: [True, False], By.ADDRESS_AND_PORT: [False, False]}
    assert expected[by] == same


def test_protocols_have_axes_of_their_own() -> None:
    """RFC 7857, section 5: a NAT may be a cone for UDP and symmetric for TCP."""
    street = of(KINDS["random"], udp=Axes(mapping=By.NOTHING, filtering=By.NOTHING))
    assert opened(street, UDP).other_address().back() is not None
    flow = opened(street)
    assert flow.port_a != flow.mapped
    assert flow.other_address().back(SYN) is None


@pytest.mark.parametrize("step", [1, -1, 2, 256, -256])
def test_sequential_takes_the_kernel_kinds_steps(step: int) -> None:
    """The same words, the same ports."""
    street = ModelStreet.of(f"sequential:step={step}")
    mapped = [opened(street, protocol).mapped for protocol in (TCP, UDP, TCP, UDP)]
    assert [step] * 3 == [later - earlier for earlier, later in pairwise(mapped)]


def test_neighbours_take_ports_at_their_rate() -> None:
    """The rate that prediction must estimate."""
    street = ModelStreet.of("sequential:foreign=20")
    first = opened(street).mapped
    street.wait(100)
    assert 1800 < opened(street).mapped - first < 2200


def test_random_ports_fill_the_range() -> None:
    """Birthday arithmetic takes all of 1024 to 65535 as equally likely, as Linux draws them."""
    street = ModelStreet.of("random")
    mapped = [opened(street, UDP).mapped for _ in range(400)]
    assert 1024 <= min(mapped) < 3000
    assert 63000 < max(mapped) <= 65535
    assert len(set(mapped)) > 390


@pytest.mark.parametrize("late", [False, True])
def test_held_syn_is_answered_after_six_seconds_unless_one_from_inside_comes(late: bool) -> None:
    """RFC 5382, REQ-4: what a NAT by the book does to simultaneous open's early SYN."""
    street = of(KINDS["linux"], stray=Stray.HELD)
    flow = street.flow()
    assert flow.back(SYN) is None
    street.wait(3)
    if not late:
        assert flow.out(SYN) is not None
    street.wait(2.5)
    assert flow.place.far.seen == []
    street.wait(1)
    assert late == bool(flow.place.far.seen)


def test_held_is_said_of_syns_alone() -> None:
    """Nothing else could be the beginning of a simultaneous open."""
    street = of(KINDS["linux"], stray=Stray.HELD)
    flow = street.flow()
    flow.back(ACK)
    street.flow(UDP).back()
    street.wait(10)
    assert flow.place.far.seen == []


def test_block_lasts_its_time_from_the_last_arrival() -> None:
    """Each arrival prolongs: whoever keeps knocking stays out."""
    street = ModelStreet.of("blacklist", "other")
    flow = opened(street)
    flow.other_port().back(SYN)
    for _ in range(3):
        street.wait(25)
        assert flow.back(SYN | ACK, ack=1001) is None
    street.wait(30)
    assert flow.back(SYN | ACK, ack=1001) is not None


@pytest.mark.parametrize(("pickup", "firsts"), [(Pickup.SYN, "S"), (Pickup.SYN_OR_ACK, "SA"), (Pickup.ANYTHING, "SAR")])
def test_pickup_says_what_may_come_first(pickup: Pickup, firsts: str) -> None:
    """Axis 10, for a NAT that tracks no states."""
    street = of(HOLES, pickup=pickup)
    flags = {"S": SYN, "A": ACK, "R": RST}
    assert firsts == "".join(name for name, flag in flags.items() if street.flow().out(flag) is not None)


@pytest.mark.parametrize("tracking", [Tracking.HOLES, Tracking.CONNTRACK])
@pytest.mark.parametrize(
    ("rst", "passes", "lives"),
    [(Ending.KEEPS, True, True), (Ending.KILLS, True, False), (Ending.SWALLOWED, False, True)],
)
def test_rst_from_outside_does_what_its_axis_says(tracking: Tracking, rst: Ending, passes: bool, lives: bool) -> None:
    """Axis 18, for a fresh SYN: what a first packet that came too early costs."""
    flow = opened(of(HOLES, tracking=tracking, rst=rst))
    assert passes == (flow.back(RST | ACK, ack=1001) is not None)
    assert lives == (flow.back(SYN | ACK, ack=1001) is not None)


@BOTH
@pytest.mark.parametrize(
    ("icmp", "passes", "lives"),
    [(Ending.KEEPS, True, True), (Ending.KILLS, True, False), (Ending.SWALLOWED, False, True)],
)
def test_error_does_what_its_axis_says(protocol: int, icmp: Ending, passes: bool, lives: bool) -> None:
    """Axis 17, through a NAT that draws ports: the error names the inside port again."""
    axes = Axes(ports=Ports.RANDOM)
    flow = of(KINDS["linux"], tcp=axes, udp=axes, icmp=icmp).flow(protocol)
    flow.out(FIRST[protocol], ttl=2)
    quoted = flow.errors[0].quoted.src if flow.errors else None
    assert (flow.port_a if passes else None) == quoted
    assert lives == (flow.back(SYN | ACK if protocol == TCP else 0, ack=1001) is not None)


@pytest.mark.parametrize(("refreshed", "lives"), [(False, False), (True, True)])
def test_a_hole_lives_as_long_as_its_timer_says(refreshed: bool, lives: bool) -> None:
    """RFC 4787, REQ-5 and REQ-6: how long, and who may prolong it."""
    street = of(HOLES, timers=Timers(hole_udp=60.0, refreshed_from_outside=refreshed))
    flow = opened(street, UDP)
    for _ in range(2):
        street.wait(40)
        heard = flow.back()
    assert lives == (heard is not None)


def test_symmetric_mapping_that_expired_comes_back_under_another_port() -> None:
    """Why a mapping that others were told of must be kept alive."""
    street = ModelStreet.of("sequential")
    flow = opened(street, UDP)
    before = flow.mapped
    street.wait(31)
    flow.out()
    assert before + 1 == flow.mapped


def test_layers_cost_a_ttl_each_and_translate_in_turn() -> None:
    """Errors find their way back through all of them."""
    street = ModelStreet.of("random/sequential/linux")
    flow = street.flow()
    for ttl in range(1, 4):
        assert flow.out(SYN, ttl=ttl) is None
        assert flow.mapped == 0
        error = flow.errors[0]
        assert flow.port_a == error.quoted.src
    assert flow.out(SYN, ttl=4) is None
    assert flow.mapped != 0
    assert "203.0.113.1" == flow.errors[0].sender
    assert flow.back(SYN | ACK, ack=1001) is not None


def test_names_of_the_kernel_lab_are_layers_here() -> None:
    """cgn is two of them, and parameters are the kind's."""
    assert ["cgn", "linux"] == [kind.name for kind in layers("cgn")]
    (kind,) = layers("sequential:step=-2,foreign=20")
    assert (-2, 20) == (kind.step, kind.foreign)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_world_takes_names_and_axes(transport: str) -> None:
    """punchd punches through two layers with the TTL that clears them, and through axes that have no name."""
    world = World("cgn", replace(KINDS["untracked"], icmp=Ending.KEEPS), transport=transport, hole_ttl=3)
    assert world.run().ok
