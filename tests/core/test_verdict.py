"""The verdict: what packets did, as a code and as a sentence.
It refuses to run a technique; evidence is written down by hand."""

from __future__ import annotations

import pytest
from acts import candidate

from punchd.core import verdict
from punchd.core.pair import Evidence, Pair, Terms
from punchd.words.errors import Code


def a_pair(technique: str = "tcp-simopen", *, blind: bool = False, evidence: Evidence | None = None) -> Pair:
    pair = Pair(0, candidate(technique), Terms(True, bytes(16), blind=blind), [])
    pair.evidence = evidence or Evidence()
    return pair


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (Evidence(), "nothing-heard"),
        (Evidence(own_syn=True), "nothing-heard"),
        (Evidence(icmp=(11, 0, "203.0.113.1")), "nothing-heard"),  # our primer died, as it should
        (Evidence(icmp=(3, 13, "203.0.113.1")), "refused-by-icmp"),
        (Evidence(icmp=(3, 13, "203.0.113.1"), rst_ttl=60), "reset-by-peer-side"),
        (Evidence(rst_ttl=60, peer_syn=True), "answer-unacknowledged"),
        (Evidence(peer_syn_ack=True), "answer-unacknowledged"),
        (Evidence(signals=2), "answer-unacknowledged"),
        (Evidence(own_syn_ack=True), "answer-unacknowledged"),  # the injected SYN was answered in the peer's place
    ],
)
def test_the_furthest_step_names_the_failure(evidence: Evidence, code: str) -> None:
    """`timeout` alone would say nothing: the code says how far the packets came."""
    assert code == verdict.pair_code(a_pair(evidence=evidence))


def test_a_failed_pair_keeps_its_own_code() -> None:
    """A host that refuses is no matter of packets."""
    pair = a_pair(evidence=Evidence(peer_syn=True))
    pair.fail("port-taken", "bind: Address already in use")
    assert "port-taken" == verdict.pair_code(pair)


def test_a_refusal_by_icmp_is_not_taken_for_a_reset() -> None:
    """The kernel says ECONNREFUSED to both; the packets know better."""
    pair = a_pair(evidence=Evidence(icmp=(3, 3, "198.51.100.2")))
    pair.fail("reset-by-peer-side", "Connection refused")
    assert "refused-by-icmp" == verdict.pair_code(pair)


def test_the_attempt_is_named_by_its_best_pair() -> None:
    """One pair that was heard tells more than four that were not."""
    pairs = [a_pair(), a_pair("tcp-midstream", evidence=Evidence(signals=2)), a_pair("tcp-nutss")]
    failed = verdict.failure(pairs)
    assert "answer-unacknowledged" == failed.code
    assert {"tcp-simopen", "tcp-midstream", "tcp-nutss"} == set(failed.cause)
    assert failed.message
    assert failed.advice


def test_the_cause_holds_what_was_seen() -> None:
    """Design: a verdict says what the packets said."""
    evidence = Evidence(own_syn=True, rst_ttl=61, icmp=(3, 1, "198.18.12.2"), errno=111)
    pair = a_pair(evidence=evidence)
    pair.fail("reset-by-peer-side", "Connection refused")
    assert {
        "code": "reset-by-peer-side",
        "peer_heard": False,
        "own_syn_left": True,
        "own_syn_ack_left": False,
        "rst_ttl": 61,
        "icmp": {"type": 3, "code": 1, "sender": "198.18.12.2"},
        "errno": 111,
        "what": "Connection refused",
    } == verdict.failure([pair]).cause["tcp-simopen"]


@pytest.mark.parametrize("pair", [a_pair("udp"), a_pair(blind=True)])
def test_nothing_is_claimed_that_was_not_looked_at(pair: Pair) -> None:
    """Without the ring nobody knows whether the SYN left."""
    assert {"code", "peer_heard"} == set(verdict.failure([pair]).cause[pair.offer.technique])


def test_unknown_codes_pass_through() -> None:
    """The edge may have a code that the table has no words for; it ranks last."""
    pair = a_pair()
    pair.fail("of-another-planet", "unheard of")
    assert "of-another-planet" == verdict.failure([pair]).code
    assert "of-another-planet" == verdict.pair_message("of-another-planet")
    assert "nothing-heard" == verdict.failure([pair, a_pair("udp")]).code


def test_every_code_with_words_is_in_the_table_of_errors() -> None:
    """Clients look up who must act by the code."""
    for code in ("answer-unacknowledged", "reset-by-peer-side", "refused-by-icmp", "nothing-heard", "syn-not-captured",
                 "port-taken", "port-refused", "host-refused"):  # fmt: skip
        assert code == Code(code)
        assert code != verdict.pair_message(code)
