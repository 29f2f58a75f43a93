"""Claims about replies.py: the lines are those of PROTOCOL.md, and say nothing that was not said."""

from __future__ import annotations

import json

from punchd.wire import replies
from punchd.words.errors import Code, PeerError


def test_the_transcripts_lines_are_written_as_shown() -> None:
    """PROTOCOL.md shows these; absent keys stay absent and the id comes first."""
    assert b'{"id":"1","status":"progress","stage":"notify","notification":"cDEB"}\n' == replies.progress(
        "1", "notify", notification="cDEB"
    )
    assert (
        b'{"id":"k7","status":"ok","fds":1,"technique":"tcp-simopen","local":"10.0.2.2:41000",'
        b'"remote":"203.0.113.2:52011","rtt_ms":100.2,"elapsed_ms":151.0}\n'
        == replies.punched(
            "k7",
            technique="tcp-simopen",
            local="10.0.2.2:41000",
            remote="203.0.113.2:52011",
            rtt_ms=100.20004,
            elapsed_ms=151.0,
        )
    )
    again = replies.punched("k", technique="udp", local="a", remote="b", rtt_ms=None, elapsed_ms=1.0, tries=2)
    assert b'"elapsed_ms":1.0,"tries":2}\n' in again
    assert b'{"id":"3","status":"ok","ended":true}\n' == replies.ok("3", ended=True)


def test_an_error_line_says_all_five_things() -> None:
    """Code, message, cause and advice under the id, null where there is none."""
    failure = PeerError(Code.NOTHING_HEARD, "not one packet came", cause={"technique": "tcp-syni"})
    line = replies.error(None, failure)
    assert {
        "id": None,
        "status": "error",
        "code": "nothing-heard",
        "message": "not one packet came",
        "cause": {"technique": "tcp-syni"},
        "advice": Code.NOTHING_HEARD.advice,
    } == json.loads(line)


def test_a_failed_technique_is_progress_with_its_reason() -> None:
    """A list of techniques goes on, and still names why each one ended."""
    failure = PeerError(Code.NOTHING_HEARD, "not one packet came", advice="wait", cause={"sent": 3})
    assert {
        "id": "1",
        "status": "progress",
        "stage": "failed",
        "technique": "tcp-syni",
        "code": "nothing-heard",
        "message": "not one packet came",
        "cause": {"sent": 3},
        "advice": "wait",
    } == json.loads(replies.progress("1", "failed", technique="tcp-syni", failed=failure))


def test_the_number_of_dropped_lines_is_added_to_a_line() -> None:
    """The edge that drops them does not know JSON."""
    line = replies.with_dropped(replies.progress("1", "trying"), 7)
    assert b'{"id":"1","status":"progress","stage":"trying","dropped":7}\n' == line
