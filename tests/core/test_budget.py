"""The budget: what may leave in a time, towards one address, for one caller and in all.
It refuses to send; tests/lab/test_fans.py counts on the wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchd.core.budget import OVERDRAFT, Budget, Limit, Limits

VICTIM, OTHER = "203.0.113.2", "203.0.113.3"
SMALL = Limits(Limit(100.0, 200), Limit(1000.0, 300), Limit(1000.0, 400))


def test_a_rested_target_takes_a_whole_burst_and_no_more() -> None:
    """One round of a fan leaves at once; the next has to wait for what the rate gives."""
    budget = Budget(SMALL)
    assert 0.0 == budget.take(VICTIM, 0, 200, 5.0, dies=False)
    assert 0.5 == budget.take(VICTIM, 0, 50, 5.0, dies=False)
    assert 0.0 == budget.take(VICTIM, 0, 50, 5.5, dies=False)


def test_a_refusal_costs_nothing() -> None:
    """Whoever asks every millisecond gets it as soon as who asks once."""
    budget = Budget(SMALL)
    budget.take(VICTIM, 0, 200, 0.0, dies=False)
    for ask in range(100):
        assert budget.take(VICTIM, 0, 20, ask / 1000, dies=False) > 0.0
    assert 0.0 == budget.take(VICTIM, 0, 20, 0.2, dies=False)


def test_targets_have_buckets_of_their_own() -> None:
    """A punch to one peer does not wait for another's."""
    budget = Budget(SMALL)
    budget.take(VICTIM, 0, 200, 0.0, dies=False)
    assert 0.0 == budget.take(OTHER, 0, 100, 0.0, dies=False)


def test_one_caller_cannot_use_up_the_host() -> None:
    """Per caller: another one still gets the rest."""
    budget = Budget(SMALL)
    budget.take(VICTIM, 1, 200, 0.0, dies=False)
    budget.take(OTHER, 1, 100, 0.0, dies=False)
    assert budget.take("198.51.100.9", 1, 50, 0.0, dies=False) > 0.0
    assert 0.0 == budget.take("198.51.100.9", 2, 50, 0.0, dies=False)
    assert budget.take("198.51.100.8", 3, 100, 0.0, dies=False) > 0.0, "the host has had its 400"


def test_what_dies_on_its_way_costs_the_target_nothing() -> None:
    """It never arrives; but our own router has to carry it."""
    budget = Budget(SMALL)
    assert 0.0 == budget.take(VICTIM, 0, 300, 0.0, dies=True)
    assert budget.take(VICTIM, 0, 1, 0.0, dies=True) > 0.0
    assert 0.0 == budget.take(VICTIM, 1, 100, 0.0, dies=False)


def test_a_burst_beyond_the_bucket_leaves_when_that_is_full() -> None:
    """A small budget makes a fan slow, not impossible."""
    budget = Budget(Limits(Limit(10.0, 5), Limit(10.0, 5), Limit(10.0, 5)))
    assert 0.0 == budget.take(VICTIM, 0, 64, 0.0, dies=False)
    wait_s = budget.take(VICTIM, 0, 64, 0.0, dies=False)
    assert 6.4 == wait_s
    assert 0.0 == budget.take(VICTIM, 0, 64, wait_s, dies=False)


def test_other_techniques_may_overdraw_a_target_so_far_and_no_farther() -> None:
    """They don't wait, but a thousand hostile notifications must not add up."""
    budget = Budget(SMALL)
    assert budget.charge(VICTIM, 0, 200 + OVERDRAFT * 200 - 1, 0, 0.0)
    assert 0.0 == budget.overdrawn_until, "nobody needs to ask"
    assert not budget.charge(VICTIM, 0, 201, 0, 0.0)
    assert 2.0 < budget.overdrawn_until < 2.1
    assert budget.take(VICTIM, 1, 1, 0.0, dies=False) > 0.0
    assert not budget.charge(VICTIM, 0, 0, 0, 1.9)
    assert budget.charge(VICTIM, 0, 0, 0, budget.overdrawn_until)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 0.05)), max_size=200))
def test_in_no_time_more_leaves_than_rate_and_burst(asked: list[tuple[int, float]]) -> None:
    """The promise at the head of core/budget.py, for fans."""
    budget, now, sent = Budget(SMALL), 0.0, 0
    for count, later_s in asked:
        now += later_s
        if budget.take(VICTIM, 0, count, now, dies=False) == 0.0:
            sent += count
        assert sent <= 100.0 * now + 200 + 0.001
