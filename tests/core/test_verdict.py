"""The verdict: what packets did, as a code and as a sentence.
It refuses to run a technique; evidence is written down by hand."""

from __future__ import annotations

import pytest
from acts import candidate

from punchd.core import verdict
from punchd.core.evidence import Evidence
from punchd.core.pair import Pair
from punchd.core.terms import Terms
from punchd.words.errors import Code
from punchd.words.notification import Fan, Offer, Spread
from punchd.words.plan import Candidate


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
        (Evidence(connects=True), "syn-not-captured"),
        (Evidence(connects=True, own_syn=True), "nothing-heard"),
        (Evidence(connects=True, send_errno=1), "blocked-outgoing"),  # EPERM: the kernel's word for a rule
        (Evidence(send_errno=1, peer_syn=True), "blocked-outgoing"),
        (Evidence(send_errno=101), "nothing-heard"),  # ENETUNREACH is no rule
        (Evidence(own_syn=True, peer_syn=True, peer_ttl=61), "blocked-incoming"),
        (Evidence(own_syn=True, peer_syn_ack=True, acknowledged=True, peer_ttl=61), "blocked-incoming"),
        (Evidence(own_syn=True, peer_syn_ack=True, peer_ttl=61), "answer-unacknowledged"),  # it was for no SYN of ours
        (Evidence(own_syn=True, peer_syn=True, peer_ttl=1), "answer-unacknowledged"),  # IP_MINTTL kept it away
        (Evidence(peer_syn=True, own_syn_ack=True, peer_ttl=61), "answer-unacknowledged"),
        (Evidence(own_syn=True, other_port=40000), "from-other-port"),
        (Evidence(own_syn=True, other_port=40000, rst_ttl=60), "from-other-port"),
    ],
)
def test_the_furthest_step_names_the_failure(evidence: Evidence, code: str) -> None:
    """`timeout` alone would say nothing: the code says how far the packets came."""
    assert code == verdict.pair_code(a_pair(evidence=evidence))


def test_a_connection_that_stands_was_not_blocked() -> None:
    """Our kernel reacted, though the ring saw no SYN-ACK of ours."""
    pair = a_pair(evidence=Evidence(own_syn=True, peer_syn_ack=True, acknowledged=True, peer_ttl=61))
    pair.connected = True
    assert "answer-unacknowledged" == verdict.pair_code(pair)


def test_made_sockets_and_blind_hosts_are_blamed_for_nothing() -> None:
    """A made socket answers no SYN, and without the ring nobody knows what arrived or left."""
    arrived = Evidence(peer_syn=True, peer_ttl=61)
    assert "answer-unacknowledged" == verdict.pair_code(a_pair("tcp-midstream", evidence=arrived))
    assert "answer-unacknowledged" == verdict.pair_code(a_pair(blind=True, evidence=arrived))
    assert "nothing-heard" == verdict.pair_code(a_pair(blind=True, evidence=Evidence(connects=True)))


def test_a_refusal_of_what_never_left_is_this_hosts() -> None:
    """Its own `reject` rule sends errors over the loopback device, where the ring does not look."""
    pair = a_pair(evidence=Evidence(connects=True, errno=111))
    pair.fail("reset-by-peer-side", "Connection refused")
    assert "blocked-outgoing" == verdict.pair_code(pair)


@pytest.mark.parametrize(("number", "code"), [(113, "socket-lost"), (111, "blocked-outgoing")])
def test_without_a_rule_it_is_the_next_hop_that_is_silent(number: int, code: str) -> None:
    """A refused connection is somebody's refusal all the same."""
    pair = a_pair(evidence=Evidence(connects=True, errno=number))
    pair.fail("socket-lost", "as the errno says")
    failed = verdict.failure([pair])
    assert "blocked-outgoing" == failed.code
    told = verdict.no_rule(failed)
    assert (code, code) == (told.code, dict(told.cause)["tcp-simopen"]["code"])
    assert told.message.startswith(verdict.pair_message(code))


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(own_syn=True, rst_ttl=60), "RST with TTL 60: its sender is 4 hops away"),
        (Evidence(own_syn=True, rst_ttl=254), "RST with TTL 254: its sender is 1 hop away"),
        (Evidence(own_syn=True, other_port=40000), "its SYN came from port 40000, not 23001"),
        (Evidence(other_port=40000, other_syn_ack=True), "its SYN-ACK came from port 40000, not 23001"),
        (Evidence(own_syn=True, icmp=(11, 0, "198.18.12.1")), "our own SYN left, ours died on its way, as it should"),
        (Evidence(icmp=(11, 0, "198.18.12.1")), "time exceeded from 198.18.12.1"),
        (Evidence(icmp=(3, 13, "203.0.113.1")), "administratively prohibited from 203.0.113.1"),
        (Evidence(icmp=(3, 99, "203.0.113.1")), "ICMP type 3 code 99 from 203.0.113.1"),
        (Evidence(send_errno=1), "Operation not permitted"),
        (Evidence(own_syn=True), "tried tcp-simopen"),
    ],
)
def test_the_message_says_what_came_back(evidence: Evidence, words: str) -> None:
    """A person reads the message; the cause is for programs."""
    assert words in verdict.failure([a_pair(evidence=evidence)]).message


@pytest.mark.parametrize(("sources", "targets", "code"), [
    (256, Spread(0), "both-ports-change"),  # ours is unknown, and theirs are many
    (256, Spread(23001), "nothing-heard"),  # the responder's NAT draws, ours keeps
    (1, Spread(0, 1024), "nothing-heard"),  # ours draws, the responder's keeps
    (64, Spread(41000), "nothing-heard"),  # both count: the next port is foreseen
])  # fmt: skip
@pytest.mark.parametrize("initiating", [True, False])
def test_a_fan_that_guesses_on_both_sides_says_so(
    *, initiating: bool, sources: int, targets: Spread, code: str
) -> None:
    """Another try has the same odds: the reader must hear that it is the networks, on either side."""
    offer = Offer("tcp-birthday", targets.first, 0, fan=Fan(targets, Spread(0, sources)))
    pair = Pair(0, Candidate(offer, 0, 0, own=Spread(0, 4), aims=Spread(0)), Terms(initiating, bytes(16)), [])
    failed = verdict.failure([pair])
    assert code == failed.code
    pair.evidence.signals = 2
    assert "answer-unacknowledged" == verdict.pair_code(pair)


@pytest.mark.parametrize(("initiating", "line"), [(True, "ask over there"), (False, "`self`")])
def test_who_hears_nothing_is_told_where_to_look(*, initiating: bool, line: str) -> None:
    """Whether the notification came is known at the responder alone; whether `self` is right, at the initiator."""
    pair = Pair(0, candidate("udp"), Terms(initiating, bytes(16)), [])
    assert line in verdict.failure([pair]).advice


@pytest.mark.parametrize("code", ["port-taken", "port-refused", "host-refused", "out-of-descriptors"])
def test_a_refusal_of_this_host_is_told_with_the_call(code: str) -> None:
    """Who reads the message alone must know what to look for."""
    pair = a_pair()
    pair.fail(code, "OpenPair: port 25004 is in use on this host")
    assert "(OpenPair: port 25004 is in use on this host)" in verdict.failure([pair]).message


def test_a_time_that_is_up_before_the_notification_was_ready_is_not_called_silence() -> None:
    """Nobody could have answered; a larger timeout helps."""
    ready, opening = a_pair(), a_pair("tcp-midstream")
    ready.say_primed()
    failed = verdict.late([ready, opening])
    assert ("time-up", "give a larger timeout_ms") == (failed.code, failed.advice)
    assert "1 of 2 techniques" in failed.message
    assert {"tcp-simopen", "tcp-midstream"} == set(failed.cause)


@pytest.mark.parametrize(("ttl", "whose"), [(57, "that of the peer's own packets"), (60, "come with 57")])
def test_a_reset_is_compared_with_the_peers_own_ttl(ttl: int, whose: str) -> None:
    """Whose TTL it is tells the peer's host from a box on the way."""
    pair = a_pair(evidence=Evidence(own_syn=True, rst_ttl=ttl, peer_ttl=57))
    assert whose in verdict.failure([pair]).message


def test_two_pairs_of_one_technique_keep_both_their_causes() -> None:
    """The second must not hide what the first had seen."""
    first = a_pair("tcp-direct", evidence=Evidence(own_syn=True, rst_ttl=60))
    cause = verdict.failure([first, a_pair("tcp-direct"), a_pair("udp"), a_pair("tcp-direct")]).cause
    assert ["tcp-direct", "tcp-direct#2", "udp", "tcp-direct#3"] == list(cause)
    assert ["reset-by-peer-side", "nothing-heard"] == [cause[key]["code"] for key in ("tcp-direct", "tcp-direct#2")]


def test_what_this_host_blocks_is_told_before_what_was_not_heard() -> None:
    """Of the two it is the one that can be mended here."""
    pairs = [a_pair("tcp-midstream"), a_pair(evidence=Evidence(connects=True)), a_pair("udp")]
    assert "syn-not-captured" == verdict.failure(pairs).code


def test_a_failed_pair_keeps_its_own_code() -> None:
    """A host that refuses is no matter of packets."""
    pair = a_pair(evidence=Evidence(peer_syn=True))
    pair.fail("port-taken", "bind: Address already in use")
    assert "port-taken" == verdict.pair_code(pair)


@pytest.mark.parametrize("code", ["reset-by-peer-side", "socket-lost"])
def test_a_refusal_by_icmp_is_not_taken_for_a_reset(code: str) -> None:
    """The kernel says ECONNREFUSED to both, or EHOSTUNREACH; the packets know better."""
    pair = a_pair(evidence=Evidence(icmp=(3, 3, "198.51.100.2")))
    pair.fail(code, "as the errno says")
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
        "peer_syn_came": False,
        "peer_syn_ack_came": False,
        "rst_ttl": 61,
        "rst_hops": 3,
        "icmp": {"type": 3, "code": 1, "sender": "198.18.12.2", "words": "host unreachable from 198.18.12.2"},
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
                 "blocked-outgoing", "blocked-incoming", "from-other-port", "port-taken", "port-refused",
                 "host-refused", "both-ports-change"):  # fmt: skip
        assert code == Code(code)
        assert code != verdict.pair_message(code)
