"""Claims about core/probe.py: what a stray brings its sender is found beside how the NAT filters, and never guessed."""

from __future__ import annotations

import pytest
from fakenat import Nat, Servers, Street
from hypothesis import given
from hypothesis import strategies as st

from punchd.words.nat import Dependence

BOTH = pytest.mark.parametrize("transport", ["tcp", "udp"])


@BOTH
@pytest.mark.parametrize("filtering", [Dependence.ADDRESS, Dependence.ADDRESS_AND_PORT])
@pytest.mark.parametrize(
    ("habits", "drops", "forgives"),
    [({}, True, True), ({"rejects": True}, False, True), ({"blocks": True}, False, False)],
    ids=["drops", "rejects", "blocks"],
)
def test_what_a_stray_brings_its_sender_is_found(
    transport: str, filtering: Dependence, habits: dict[str, bool], drops: bool, forgives: bool
) -> None:
    """Who fires where no hole may be has to know; a NAT that neither answers nor blocks takes no harm."""
    face = Street(transport, Nat(filtering=filtering, **habits)).run().face
    assert face is not None
    silent = transport == "udp" and filtering is Dependence.ADDRESS and forgives  # who is asked again has sent no stray
    assert (None if silent else drops, forgives) == (face.nat.drops_strays, face.nat.forgives)


@BOTH
def test_server_that_does_not_tell_of_errors_leaves_open_whether_strays_are_dropped(transport: str) -> None:
    """coturn hears of no ICMP error. That its second address is heard again says who is forgiven all the same."""
    face = Street(transport, servers=Servers(tells=False)).run().face
    assert face is not None
    assert (None, True) == (face.nat.drops_strays, face.nat.forgives)


@BOTH
def test_who_is_let_in_has_sent_no_stray(transport: str) -> None:
    """Nothing is known then, and nothing more is asked: the finding is as quick as without the question."""
    street = Street(transport, Nat(filtering=Dependence.INDEPENDENT))
    face = street.run().face
    assert face is not None
    assert (None, None) == (face.nat.drops_strays, face.nat.forgives)
    assert street.now < 100.25


@BOTH
def test_question_after_the_strays_costs_no_time_where_they_are_forgiven(transport: str) -> None:
    """The usual router: the strays are waited for anyhow, and they come first."""
    street = Street(transport)
    street.run()
    calls = [at for at, ask in street.asked if ask.change is not None]
    assert street.now < (100.9 if transport == "udp" else 102.2)
    again = [at for at, ask in street.asked if at > calls[0] and ask.change is None]
    assert (1 if transport == "udp" else 0) == len(again)
    assert all(at > calls[-1] + 2 * street.rtt_s for at in again)


@BOTH
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.3), rejects=st.booleans())
def test_loss_never_makes_a_nat_look_kinder_than_it_is(transport: str, seed: int, loss: float, rejects: bool) -> None:
    """A NAT that answers strays is never taken for one that drops them, whatever is lost."""
    face = Street(transport, Nat(rejects=rejects, seed=seed), loss=loss, seed=seed).run().face
    if face is not None and rejects:
        assert not face.nat.drops_strays
