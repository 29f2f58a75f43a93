"""From what the packets did to why it failed and what would help.
Decides no course of action; an attempt that fails asks it for the words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from punchd.core.evidence import Evidence
from punchd.core.pair import Pair
from punchd.words.outcomes import Failed

_DOCTOR = "`punchctl doctor` names the rule, and the line that mends it"

# The order is that of interest: what this host does to itself, then the furthest that any pair came.
_WORDS: dict[str, tuple[str, str]] = {
    "blocked-incoming": (
        "the peer's packet reached this host and no answer left: a rule of this host drops the one or the other",
        f"{_DOCTOR}; it looks at rp_filter, too",
    ),
    "blocked-outgoing": ("a rule of this host drops what we send", _DOCTOR),
    "answer-unacknowledged": (
        "the peer was heard and answered, but our answer was never acknowledged",
        "our answer is lost on its way out: our own NAT or firewall calls it invalid; try another technique",
    ),
    "from-other-port": (
        "the peer was heard from another port than it named",
        "the peer's NAT changes ports: `punchctl netcheck` over there tells how",
    ),
    "reset-by-peer-side": (
        "a reset came back for what we sent",
        "the peer's NAT or host answers strays with RST; let both sides use a technique that primes (not tcp-direct)",
    ),
    "refused-by-icmp": (
        "a router refused what we sent",
        "see cause for who refused; a firewall on the path forbids this traffic",
    ),
    "syn-not-captured": (
        "our own SYN never left this host",
        f"a rule of this host drops it, or the route to the peer leaves through no interface of this host; {_DOCTOR}",
    ),
    "nothing-heard": (
        "nothing came from the peer",
        "either the peer never fired (did the notification reach it in time?) or a NAT dropped it",
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

_TIME_EXCEEDED, _UNREACHABLE, _PARAMETER_PROBLEM = 11, 3, 12  # RFC 792
_ICMP_WORDS = {
    (_UNREACHABLE, 0): "network unreachable", (_UNREACHABLE, 1): "host unreachable",
    (_UNREACHABLE, 2): "protocol unreachable", (_UNREACHABLE, 3): "port unreachable",
    (_UNREACHABLE, 4): "packet too large", (_UNREACHABLE, 9): "network prohibited",
    (_UNREACHABLE, 10): "host prohibited", (_UNREACHABLE, 13): "administratively prohibited",
    (_TIME_EXCEEDED, 0): "time exceeded", (_PARAMETER_PROBLEM, 0): "parameter problem",
}  # fmt: skip
_FIRST_TTLS = (64, 128, 255)  # what systems begin with
_BY_KERNEL = ("reset-by-peer-side", "socket-lost")  # fail codes that a socket's errno came to


def pair_code(pair: Pair) -> str:
    """The cause, as an error code, why this pair is not connected (so far)."""
    seen = pair.evidence
    refused = seen.icmp is not None and seen.icmp[0] != _TIME_EXCEEDED
    by_kernel = pair.fail_code in _BY_KERNEL
    if (pair.fail_code is None or by_kernel) and seen.send_errno == errno.EPERM:
        return "blocked-outgoing"
    if by_kernel and _syn_kept(pair):
        return "blocked-outgoing"  # something answered a SYN that never left: this host's own `reject`
    if by_kernel and seen.rst_ttl is None and refused:
        return "refused-by-icmp"  # to the kernel it is ECONNREFUSED, as a reset is, or EHOSTUNREACH
    if pair.fail_code is not None:
        return pair.fail_code
    if _unheeded(pair):
        return "blocked-incoming"
    if seen.heard() or seen.own_syn_ack:
        return "answer-unacknowledged"
    if pair.moved:
        return "port-taken"
    if seen.other_port is not None:
        return "from-other-port"
    if seen.rst_ttl is not None:
        return "reset-by-peer-side"
    if refused:
        return "refused-by-icmp"
    return "syn-not-captured" if _syn_kept(pair) else "nothing-heard"


def pair_message(code: str) -> str:
    """The sentence for a code."""
    return _WORDS[code][0] if code in _WORDS else code


def failure(pairs: Sequence[Pair]) -> Failed:
    """The verdict on a whole attempt: the furthest any pair came, and per pair what was seen.

    The cause's keys are the techniques; the second pair of one technique is `tcp-direct#2`, and so on.
    """
    codes = [pair_code(pair) for pair in pairs]
    code = min(codes, key=lambda c: _RANK.get(c, len(_RANK)))
    message, advice = _WORDS.get(code, (code, ""))
    detail = _detail(pairs[codes.index(code)], code)
    tried = dict.fromkeys(pair.offer.technique for pair in pairs)
    words = f"{message}{f' ({detail})' if detail else ''}; tried {', '.join(tried)}"
    return Failed(code, words, advice, dict(zip(_names(pairs), map(_cause, pairs, codes), strict=True)))


def _names(pairs: Sequence[Pair]) -> list[str]:
    names: list[str] = []
    for at, pair in enumerate(pairs):
        before = sum(one.offer.technique == pair.offer.technique for one in pairs[:at])
        names.append(pair.offer.technique + (f"#{before + 1}" if before else ""))
    return names


def _syn_kept(pair: Pair) -> bool:
    """connect() was called, and the ring, which sees all that leaves, saw no SYN of it."""
    return pair.evidence.connects and not pair.evidence.own_syn and not pair.blind


def _unheeded(pair: Pair) -> bool:
    """The ring, which sees before any rule, saw what a kernel must answer, and ours did not.

    A SYN brings forth a SYN-ACK from a listener and in SYN_SENT alike, a SYN-ACK for our SYN makes a connection
    (RFC 9293, 3.10.7). A made socket answers neither, and IP_MINTTL keeps what comes with a TTL of 1 from it.
    """
    seen = pair.evidence
    if seen.deaf:
        return True
    if pair.blind or pair.connected or seen.own_syn_ack or pair.offer.technique == "tcp-midstream":
        return False
    return (seen.peer_ttl or 0) > 1 and (seen.acknowledged or (seen.peer_syn and not seen.peer_syn_ack))


def _detail(pair: Pair, code: str) -> str:
    tell = _DETAILS.get(code)
    return tell(pair.evidence, pair) if tell is not None else ""


def _reset_detail(seen: Evidence, pair: Pair) -> str:
    if seen.rst_ttl is None:
        return ""
    if seen.peer_ttl == seen.rst_ttl:
        return f"RST with TTL {seen.rst_ttl}, that of the peer's own packets"
    whose = f"not the peer, whose packets come with {seen.peer_ttl}: " if seen.peer_ttl is not None else ""
    return f"RST with TTL {seen.rst_ttl}: {whose}its sender is {_hops(seen.rst_ttl)} hops away"


def _icmp_detail(seen: Evidence, pair: Pair) -> str:
    return "" if seen.icmp is None else _icmp_words(*seen.icmp)


def _port_detail(seen: Evidence, pair: Pair) -> str:
    named = pair.offer.responder_port if pair.terms.initiating else pair.offer.initiator_port
    return f"port {seen.other_port}, not {named}"


def _errno_detail(seen: Evidence, pair: Pair) -> str:
    number = seen.send_errno if seen.send_errno is not None else seen.errno
    return "" if number is None else os.strerror(number)


_DETAILS: dict[str, Callable[[Evidence, Pair], str]] = {
    "reset-by-peer-side": _reset_detail, "refused-by-icmp": _icmp_detail, "from-other-port": _port_detail,
    "blocked-outgoing": _errno_detail, "socket-lost": _errno_detail,
}  # fmt: skip


def _hops(ttl: int) -> int:
    """How many routers have counted it down, if it began with a usual TTL."""
    return next(first for first in _FIRST_TTLS if first >= ttl) - ttl


def _icmp_words(kind: int, code: int, sender: str) -> str:
    return f"{_ICMP_WORDS.get((kind, code), f'ICMP type {kind} code {code}')} from {sender}"


def _cause(pair: Pair, code: str) -> dict[str, object]:
    """What was seen of one pair; a key is left out where nobody looked, or nothing came."""
    seen = pair.evidence
    cause: dict[str, object] = {"code": code, "peer_heard": seen.heard()}
    if not pair.blind and pair.stream:
        cause["own_syn_left"] = seen.own_syn
        cause["own_syn_ack_left"] = seen.own_syn_ack
        cause["peer_syn_came"] = seen.peer_syn
        cause["peer_syn_ack_came"] = seen.peer_syn_ack
    if seen.rst_ttl is not None:
        cause["rst_ttl"], cause["rst_hops"] = seen.rst_ttl, _hops(seen.rst_ttl)
    if seen.icmp is not None:
        kind, number, sender = seen.icmp
        cause["icmp"] = {"type": kind, "code": number, "sender": sender, "words": _icmp_words(*seen.icmp)}
    numbers = {
        "peer_ttl": seen.peer_ttl, "other_port": seen.other_port,
        "errno": seen.errno, "send_errno": seen.send_errno,
    }  # fmt: skip
    cause |= {key: number for key, number in numbers.items() if number is not None}
    if pair.fail_cause:
        cause["what"] = pair.fail_cause
    return cause
