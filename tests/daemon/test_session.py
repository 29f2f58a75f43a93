"""What a connection keeps of its attempts.
Punches nothing: service and connection are stand-ins that say yes to everything."""

from __future__ import annotations

import gc
from unittest.mock import MagicMock

import pytest

from punchd.daemon.run import Run
from punchd.daemon.session import Call, Session
from punchd.words.addresses import Endpoint
from punchd.words.outcomes import Failed, Punched
from punchd.words.requests import Ping

FAILED = Failed("time-up", "no answer", "")


def a_call(*, blamed: bool = False) -> Call:
    session = MagicMock()
    session._service.blame.concerns.return_value = blamed
    call = Call(session, "1", 0, None)
    call.run = Run(MagicMock(), call, None)
    return call


def test_an_attempt_that_is_over_is_let_go_of_at_once() -> None:
    """A run knows its caller: such a circle stays until the collector comes, after a thousand attempts."""
    call = a_call()
    call.failed(FAILED)
    call.ended()
    assert call.run is None


def test_an_attempt_whose_failure_is_looked_into_is_kept_until_it_is_told() -> None:
    """The retry's memory wants to know which attempt it was."""
    call = a_call(blamed=True)
    call.failed(FAILED)
    call.ended()
    attempt = call.run and call.run.attempt
    ((_, _, tell), _) = call.session._service.blame.find.call_args
    tell(FAILED)
    call.session._service.admission.ended.assert_called_once_with(0, attempt, ok=False)
    assert call.run is None


@pytest.mark.parametrize("alone", [True, False])
def test_a_hand_over_that_is_all_there_is_to_say_leaves_at_once(alone: bool) -> None:
    """With others in one turn of the loop it wakes the application once for all of them."""
    call = a_call()
    call.alone = alone
    ends = Endpoint("10.0.1.2", 22000), Endpoint("198.51.100.2", 22001)
    call.punched(Punched("tcp-midstream", *ends, 1.0, 2.0, 1), 7)
    (sent,) = call.session.connection.send.call_args_list  # type: ignore[attr-defined]  # a stand-in
    assert alone == sent.kwargs["at_once"]


def test_a_connection_that_is_over_is_let_go_of_at_once() -> None:
    """A session that knows itself stays until the collector comes, after thousands of connections."""
    gc.collect()
    gc.disable()
    try:
        session = Session(MagicMock(pong=b""), MagicMock())
        session.handle(Ping(id="1"))
        session.closed()
        del session
        assert not any(type(thing) is Session for thing in gc.get_objects())
    finally:
        gc.enable()
