"""Journal lines: every event survives them, every effect is comparable, and broken lines are named.
It refuses to replay; tests/test_replay.py does."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchd.wire.journal import EVENTS, Head, JournalError, as_written, decode, encode_head, encode_step
from punchd.words import effects as do
from punchd.words import events as seen
from punchd.words.addresses import Endpoint
from punchd.words.notification import Notification, Offer, Ready, SecondMessage, Syn
from punchd.words.outcomes import Failed, Progress, Punched

HEAD = Head(
    punchd="0.1.0", role="responding", now=812.25, timeout_s=10.0, nonce=bytes(range(16)), hole_ttl=2, blind=False,
    local="10.0.2.2", runnable=("tcp-syni",),
    notification=Notification(bytes(range(16)), "203.0.113.2", "198.51.100.2", "tcp",
                              (Offer("tcp-syni", 22001, 23001, Syn(1, 2, None, 7, True, None)),)),
)  # fmt: skip
PUNCHED = Punched("udp", Endpoint("10.0.2.2", 1), Endpoint("203.0.113.2", 2), None, 1.5)
EFFECTS: list[do.Effect] = [
    do.OpenFan(0, "udp-birthday", 0, "203.0.113.2", 2, ours=True, tag=b"\0tag", seed=1 << 62),
    do.Spray(0, seen.Signal.FIRE, ((1, 2), (3, 4)), ttl=2, seq=5, ack=6), do.Adopt(0, 1, 2, ttl=2, seq=5),
    do.OpenPair(0, "udp", 1, "203.0.113.2", 2, ours=True), do.Connect(0, ttl=None), do.Abort(0), do.Listen(0, ttl=2),
    do.Materialise(0, 1, 2), do.AskKernel(0), do.Locate(0, 40000),
    do.OpenDatagram(0, b"\0tag"), do.SetTtl(0, 2), do.Resend(0, b"\xff\x00"),
    do.Inject(0, Syn(1, 2, 3, 4, False, 5)), do.Tell(0, seen.Signal.COMMIT), do.Clear(0, 2, 3), do.ClosePair(0),
    do.Notify(HEAD.notification or typing.cast(Notification, None)), do.Report(Progress("trying", "udp")),
    do.CallBack(SecondMessage(bytes(16), (Ready(1, 2),))),
    do.HandOver(0, "udp", outcome=PUNCHED), do.Finish(Failed("cancelled", "", "", {"udp": {"code": "x"}})),
    do.Finish(PUNCHED),
]  # fmt: skip


def test_every_event_and_effect_has_its_line() -> None:
    """A word that journals forget would end the run of whoever asked for one."""
    assert set(typing.get_args(seen.Event)) == set(EVENTS.values())
    assert set(typing.get_args(do.Effect)) == {type(effect) for effect in EFFECTS}


st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))  # a wait is finite


@given(st.sampled_from(sorted(EVENTS)).flatmap(lambda name: st.builds(EVENTS[name])), st.floats(0, 1e9))
def test_events_survive(event: seen.Event, at: float) -> None:
    """To the bit, times included: a replay compares deadlines with them."""
    _, steps = decode([encode_head(HEAD), encode_step(event, at, "FIRING", [])])
    step = next(steps)
    assert (event, at) == (step.event, step.at)


def test_effects_are_kept_as_written() -> None:
    """Comparable, though not performable."""
    _, steps = decode([encode_head(HEAD), encode_step(None, 1.0, "FIRING", EFFECTS)])
    step = next(steps)
    assert step.event is None
    assert as_written(EFFECTS) == step.effects
    assert as_written(EFFECTS[:1]) != step.effects[1:2]


def test_the_head_survives() -> None:
    """Notification and all."""
    assert HEAD == decode([encode_head(HEAD)])[0]


def test_a_last_line_that_was_cut_is_left_out() -> None:
    """kill -9 in the middle of a write."""
    line = encode_step(seen.Settled(), 1.0, "FIRING", EFFECTS)
    for end in range(len(line)):
        _, steps = decode([encode_head(HEAD), line, line[:end]])
        assert 1 == len(list(steps))


@pytest.mark.parametrize(
    "lines",
    [[], [b"\n"], [b"{}\n"], [b'{"role":1}\n'], [encode_head(HEAD)[:40]],
     [encode_head(HEAD), b"{}\n"],
     [encode_head(HEAD), b'{"at":1,"event":["Nonsense",{}],"state":"x","effects":[]}\n'],
     [encode_head(HEAD), b'{"at":1,"event":["Connected",{}],"state":"x","effects":[]}\n']],
)  # fmt: skip
def test_what_is_no_journal_is_named(lines: list[bytes]) -> None:
    """The line's number helps who edits one by hand."""
    with pytest.raises(JournalError, match=r"empty|line \d"):
        list(decode(lines)[1])
