"""From what the packets did to why it failed and what would help.
Decides no course of action; an attempt that fails asks it for the words."""

from __future__ import annotations

from collections.abc import Sequence

from punchd.core.pair import Pair
from punchd.words.outcomes import Failed

# The order is that of interest: the furthest any pair came names the attempt's failure.
_WORDS: dict[str, tuple[str, str]] = {
    "answer-unacknowledged": (
        "the peer was heard and answered, but our answer was never acknowledged",
        "our answer is lost on its way out: our own NAT or firewall calls it invalid; try another technique",
    ),
    "reset-by-peer-side": (
        "a reset came back for what we sent",
        "the peer's NAT or host answers strays with RST; let both sides use a technique that primes (not tcp-direct)",
    ),
    "refused-by-icmp": (
        "a router refused what we sent",
        "see cause.icmp for who refused; a firewall on the path forbids this traffic",
    ),
    "nothing-heard": (
        "nothing came from the peer",
        "either the peer never fired (did the notification reach it in time?) or a NAT dropped it",
    ),
    "syn-not-captured": (
        "our own SYN did not appear in the capture ring",
        "is the packet filter attached, and does the route to the peer leave through an interface of this host?",
    ),
    "socket-lost": ("the kernel gave up the socket", "see cause.errno"),
    "out-of-descriptors": ("punchd has no file descriptor left", "raise its limit (ulimit -n, LimitNOFILE=)"),
    "port-taken": ("the port that the peer named is in use on this host", "try again: each attempt draws new ports"),
    "port-refused": (
        "the peer named a port outside of this host's punch range",
        "configure the same punch range on both hosts",
    ),
    "host-refused": ("this host refused what the technique needs", "see cause; punchctl ping lists what is missing"),
}  # fmt: skip
_RANK = {code: rank for rank, code in enumerate(_WORDS)}

_ICMP_TIME_EXCEEDED = 11


def pair_code(pair: Pair) -> str:
    """The cause, as an error code, why this pair is not connected (so far)."""
    seen = pair.evidence
    refused = seen.icmp is not None and seen.icmp[0] != _ICMP_TIME_EXCEEDED
    if pair.fail_code == "reset-by-peer-side" and seen.rst_ttl is None and refused:
        return "refused-by-icmp"  # the kernel calls both ECONNREFUSED
    if pair.fail_code is not None:
        return pair.fail_code
    if seen.heard() or seen.own_syn_ack:
        return "answer-unacknowledged"
    if pair.moved:
        return "port-taken"
    if seen.rst_ttl is not None:
        return "reset-by-peer-side"
    if refused:
        return "refused-by-icmp"
    return "nothing-heard"


def pair_message(code: str) -> str:
    """The sentence for a code."""
    return _WORDS[code][0] if code in _WORDS else code


def failure(pairs: Sequence[Pair]) -> Failed:
    """The verdict on a whole attempt: the furthest any pair came, and per technique what was seen."""
    codes = [pair_code(pair) for pair in pairs]
    code = min(codes, key=lambda c: _RANK.get(c, len(_RANK)))
    message, advice = _WORDS.get(code, (code, ""))
    cause = {pair.offer.technique: _cause(pair, pair_code(pair)) for pair in pairs}
    return Failed(code, message, advice, cause)


def _cause(pair: Pair, code: str) -> dict[str, object]:
    seen = pair.evidence
    cause: dict[str, object] = {"code": code, "peer_heard": seen.heard()}
    if not pair.blind and pair.stream:
        cause["own_syn_left"] = seen.own_syn
        cause["own_syn_ack_left"] = seen.own_syn_ack
    if seen.rst_ttl is not None:
        cause["rst_ttl"] = seen.rst_ttl
    if seen.icmp is not None:
        cause["icmp"] = {"type": seen.icmp[0], "code": seen.icmp[1], "sender": seen.icmp[2]}
    if seen.errno is not None:
        cause["errno"] = seen.errno
    if pair.fail_cause:
        cause["what"] = pair.fail_cause
    return cause
