"""PROTOCOL.md against a real daemon: order of lines, ids, cancel, half-close, SIGTERM, what status tells.

It refuses to use the client library, which would hide what is on the socket.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from duo import Duo, Talker, duo, initiate
from running import Daemon, answers, punch_sockets, tables

from punchd.core.plan import AUTO
from punchd.wire.peer import decode_notification, encode_second
from punchd.words.notification import Ready, SecondMessage

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.fixture(scope="module", name="both")
def _both() -> Iterator[Duo]:
    with duo("linux", "linux") as made:
        yield made


def test_transcript_of_the_page_is_what_happens(both: Duo) -> None:
    """Line by line, key by key: other languages' clients are written from that page."""
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(initiate(both.lab, "auto"))
        notify = near.hear()
        assert {"id", "status", "stage", "notification"} == notify.keys()
        assert ("1", "progress", "notify") == (notify["id"], notify["status"], notify["stage"])
        assert len(notify["notification"]) <= 1024
        far.say({"id": "k7", "call": "respond", "notification": notify["notification"]})
        assert {"id": "k7", "status": "progress", "stage": "trying", "technique": "tcp-simopen"} == far.hear()
        finals = [far.final(), near.final()]
    for final, id, local in zip(finals, ("k7", "1"), ("10.0.2.2", "10.0.1.2"), strict=True):
        assert {"id", "status", "fds", "technique", "local", "remote", "rtt_ms", "elapsed_ms"} == final.keys()
        assert (id, "ok", 1, "tcp-simopen") == (final["id"], final["status"], final["fds"], final["technique"])
        assert local == final["local"].partition(":")[0]
    assert finals[0]["local"].partition(":")[2] == finals[1]["remote"].partition(":")[2]


@pytest.mark.parametrize("technique", ["tcp-simopen", "tcp-midstream", "udp"])
def test_a_second_message_saves_an_attempt_whose_port_is_taken(both: Duo, technique: str) -> None:
    """A local program on one of ten thousand ports is no reason to fail where the application carries messages back."""
    transport = technique.partition("-")[0]
    request = initiate(both.lab, "") | {"techniques": [technique], "transport": transport}
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(request)
        text = near.hear()["notification"]
        port = decode_notification(text).offers[0].responder_port
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with both.lab.b.socket(socket.AF_INET, kind) as service:
            service.bind(("0.0.0.0", port))
            if transport == "tcp":
                service.listen()
            far.say({"id": "1", "call": "respond", "notification": text})
            lines = [far.hear(), far.hear()]
            (back,) = [line["notification"] for line in lines if line["stage"] == "notify"]
            assert {"id": "n", "status": "ok"} == near.ask({**NOTIFY, "notification": back})
            finals = [far.final(), near.final()]
    assert [(technique, 1)] * 2 == [(final["technique"], final["fds"]) for final in finals]
    assert port != int(finals[0]["local"].partition(":")[2])


def test_second_messages_that_lie_are_refused_and_cost_nothing(both: Duo) -> None:
    """Of another attempt, altered, none at all, or for a responder."""
    forged = encode_second(SecondMessage(bytes(16), (Ready(0, 30000),)))
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(initiate(both.lab, "auto"))
        text = near.hear()["notification"]
        for lie in (forged, forged[:-1], text, "x"):
            assert "notification-broken" == near.ask({**NOTIFY, "notification": lie})["code"]
        far.say({"id": "1", "call": "respond", "notification": text})
        own = encode_second(SecondMessage(decode_notification(text).nonce, (Ready(0, 30000),)))
        far.say({**NOTIFY, "notification": own})
        refused = next(line for line in iter(far.hear, None) if line["id"] == "n")["code"]
        assert refused in {"bad-value", "no-such-attempt"}  # the latter where it has succeeded already
        assert "ok" == near.final()["status"]


NOTIFY = {"id": "n", "call": "notify", "attempt": "1"}


def test_list_names_each_failure_on_its_way(both: Duo) -> None:
    """Who waits must see what is tried, and afterwards why."""
    with Talker(both.a.path) as near, Talker(both.b.path) as far:
        near.say(initiate(both.lab, "") | {"techniques": ["tcp-syni", "tcp-nutss", "tcp-simopen"]})
        far.say({"id": "1", "call": "respond", "notification": near.hear()["notification"]})
        lines = [far.hear()]
        while lines[-1]["status"] == "progress":
            lines.append(far.hear())
    told = [(line["stage"], line["technique"]) for line in lines[:-1]]
    assert [name for stage, name in told if stage == "trying"] == ["tcp-syni", "tcp-nutss", "tcp-simopen"]
    assert [name for stage, name in told if stage == "failed"] == ["tcp-syni", "tcp-nutss"]
    assert all(line["code"] and line["message"] for line in lines if line.get("stage") == "failed")
    assert "tcp-simopen" == lines[-1]["technique"]


def test_id_is_taken_while_open_and_free_afterwards(both: Duo) -> None:
    """Two requests of one name could not be told apart."""
    with Talker(both.a.path) as talker:
        for _ in range(2):
            talker.say(initiate(both.lab, "tcp-simopen"))
            assert "notification" in talker.hear()
            talker.say({"id": "1", "call": "ping"})
            assert "id-in-use" == talker.hear()["code"]
            talker.say({"id": "c", "call": "cancel", "attempt": "1"})
            assert [("1", "cancelled"), ("c", None)] == [(line["id"], line.get("code")) for line in _hear(talker, 2)]


def test_cancel_of_what_has_ended_says_so(both: Duo) -> None:
    """A cancel that crosses the final line is no error."""
    with Talker(both.a.path) as talker:
        assert {"id": "c", "status": "ok", "ended": True} == talker.ask({"id": "c", "call": "cancel", "attempt": "1"})


def test_half_closed_caller_gets_its_finals_and_then_the_end(both: Duo) -> None:
    """`printf ... | nc -U` must work."""
    with Talker(both.a.path) as talker:
        talker.say(initiate(both.lab, "tcp-simopen", timeout_ms=200))
        talker.sock.shutdown(socket.SHUT_WR)
        assert "notify" == talker.hear()["stage"]
        assert "nothing-heard" == talker.final()["code"]
        assert {} == talker.hear()


def test_status_lists_what_runs_and_ping_what_can(both: Duo) -> None:
    """For people: whose attempt, since when, towards whom."""
    with Talker(both.a.path) as talker, Talker(both.a.path) as other:
        talker.say(initiate(both.lab, "tcp-midstream", id="mine"))
        assert "notification" in talker.hear()
        status = other.ask({"id": "s", "call": "status"})
        assert (1, 2) == (status["open"], status["callers"])
        (attempt,) = status["attempts"]
        assert attempt["attempt"].endswith("/mine")
        assert (0, "initiating", both.lab.public_b) == (attempt["uid"], attempt["role"], attempt["remote"])
        ping = other.ask({"id": "p", "call": "ping"})
    assert (1, []) == (ping["protocol"], ping["missing"])
    assert {*AUTO["tcp"], *AUTO["udp"], "tcp-birthday", "udp-birthday"} == set(ping["techniques"])


def test_connections_of_others_are_out_of_reach(both: Duo) -> None:
    """Ids belong to a connection: a neighbour's attempt can be neither cancelled nor fed by its id."""
    with Talker(both.a.path) as talker, Talker(both.a.path) as other:
        talker.say(initiate(both.lab, "tcp-simopen"))
        text = talker.hear()["notification"]
        assert other.ask({"id": "c", "call": "cancel", "attempt": "1"})["ended"]
        assert (
            "no-such-attempt" == other.ask({"id": "n", "call": "notify", "attempt": "1", "notification": text})["code"]
        )
        assert 1 == other.ask({"id": "s", "call": "status"})["open"]


def test_sigterm_ends_every_attempt_with_its_last_line(both: Duo) -> None:
    """An orderly end: whoever waits is told, nothing stays, and the path is free for the next daemon."""
    place = both.lab.a
    own_tables = tables(place)
    _wait_until_nothing_is_held(both)
    with Daemon(place) as daemon, Talker(daemon.path) as talker:
        for number in range(50):
            talker.say(initiate(both.lab, "auto", id=str(number)))
        for _ in range(50):
            assert "notification" in talker.hear()
        daemon.child.send_signal(signal.SIGTERM)
        finals = [talker.final() for _ in range(50)]
        assert {} == talker.hear()
        assert 0 == daemon.child.wait(5)
        assert not os.path.exists(daemon.path)
    assert {"shutting-down"} == {final["code"] for final in finals}
    assert 50 == len({final["id"] for final in finals})
    assert own_tables == tables(place)
    assert [] == [sock for sock in punch_sockets(place) if sock["inode"]]


def _wait_until_nothing_is_held(both: Duo) -> None:
    """The daemon that all tests here share keeps its losers' ports for a second."""
    deadline = time.monotonic() + 5
    while held := [sock for sock in punch_sockets(both.lab.a) if sock["inode"]]:
        assert time.monotonic() < deadline, held
        time.sleep(0.05)


def test_second_daemon_on_one_path_is_refused_and_the_first_goes_on(both: Duo) -> None:
    """Starting it twice is the commonest slip; it must not cut off the callers of the first."""
    with Daemon(both.lab.a) as daemon:
        options = ["--socket", daemon.path]
        again = both.lab.a.run(["sh", "-c", f"{sys.executable} -m punchd {' '.join(options)} 2>&1; echo $?"])
        assert again.endswith("1\n")
        assert "another punchd" in again
        assert answers(daemon.path)


def test_many_connections_at_once_are_all_served(both: Duo) -> None:
    """Callers come in herds after a network change."""
    answered = []

    def ask() -> None:
        with Talker(both.a.path) as talker:
            answered.append(talker.ask({"id": "1", "call": "ping"})["status"])

    herd = [threading.Thread(target=ask) for _ in range(100)]
    for caller in herd:
        caller.start()
    for caller in herd:
        caller.join()
    assert ["ok"] * 100 == answered


def _hear(talker: Talker, count: int) -> list[dict[str, object]]:
    return [talker.hear() for _ in range(count)]
