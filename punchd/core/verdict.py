"""From what the packets did to why it failed and what would help.
Decides no course of action; an attempt that fails asks it for the words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from punchd.core.evidence import Evidence
from punchd.core.pair import Pair
from punchd.words.notification import Fan
from punchd.words.outcomes import Failed

_DOCTOR = "`sudo punchctl doctor` names the rule, and the line that mends it"
_NETCHECK = "`punchctl netcheck --server HOST` over there tells how its NAT changes ports"

# The order is that of interest: what this host does to itself, then the furthest that any pair came.
_WORDS: dict[str, tuple[str, str]] = {
    "blocked-incoming": (
        "the peer's packet reached this host and no answer left: a rule of this host drops the one or the other",
        f"{_DOCTOR}; it looks at rp_filter, too",
    ),
    "blocked-outgoing": ("a rule of this host drops what we send", _DOCTOR),
    "answer-unacknowledged": (
        "the peer was heard and answered, but our answer was never acknowledged",
        "our answer is lost on its way: our own NAT or the peer's calls it invalid; "
        "another technique may pass, and `auto` tries them all",
    ),
    "from-other-port": (
        "the peer was heard from another port than it named",
        f"its NAT changes ports: {_NETCHECK}; initiate with both sides' descriptors (the `endpoint` call), "
        "and the plan allows for it",
    ),
    "reset-by-peer-side": (
        "a reset came back for what we sent",
        "the peer's NAT or host answers strays with RST; let both sides use a technique that primes (not tcp-direct)",
    ),
    "refused-by-icmp": (
        "what we sent was refused",
        "a firewall there forbids this traffic: ask whoever runs the sender of the ICMP error",
    ),
    "syn-not-captured": (
        "our own SYN never left this host",
        f"a rule of this host drops it, or the route to the peer leaves through no interface of this host; {_DOCTOR}",
    ),
    "both-ports-change": (
        "nothing came from the peer: both sides' NATs give each connection another port, and neither side can know "
        "the other's",
        "one side needs a port that stays: forward one of the punch range to it at its router and initiate with that "
        "ADDRESS:PORT as its place, or use another network there; a repeat meets by chance, a few times in a thousand",
    ),
    "nothing-heard": ("nothing came from the peer", ""),
    "socket-lost": (
        "the kernel of this host gave up the socket",
        "its word stands in the message: where that is about hosts or routes, `ip route get` and `ip neigh` show who "
        "does not answer",
    ),
    "out-of-descriptors": ("punchd has no file descriptor left", "raise its limit (ulimit -n, LimitNOFILE=)"),
    "port-taken": ("a port that is needed is in use on this host", "try again: each attempt draws new ports"),
    "port-refused": (
        "the peer named a port outside of this host's punch range",
        "configure the same punch range on both hosts",
    ),
    "host-refused": ("this host refused what the technique needs", "see cause; `punchctl ping` lists what is missing"),
}  # fmt: skip
_SILENCE = {  # who hears nothing at all must look at the other side, and what is there to be seen depends on who asks
    True: (
        "ask over there: if its punchd has no such attempt, the notification came too late or not at all; if it has "
        "one, its own verdict knows more. `punchctl netcheck --server HOST` on both sides tells how their NATs work"
    ),
    False: (
        "the initiator lives, for its notification came: its own verdict knows more. Is the address that it gave as "
        "`self` its public one? `punchctl netcheck --server HOST` over there tells"
    ),
}
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
    if _syn_kept(pair):
        return "syn-not-captured"
    return "both-ports-change" if _guesses(pair.offer.fan) else "nothing-heard"


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
    telling = pairs[codes.index(code)]
    detail = _detail(telling, code)
    advice = advice or (_SILENCE[telling.terms.initiating] if code == "nothing-heard" else "")
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


def no_rule(failed: Failed) -> Failed:
    """The verdict where no rule of this host was found: a next hop that is silent looks to a socket as a `reject` does.

    Of the latter the ring sees nothing, since the error comes over the loopback device; of the former there is nothing.
    """
    causes: dict[str, object] = {
        key: cause | {"code": "socket-lost"} if isinstance(cause, dict) and _is_unreachable(cause) else cause
        for key, cause in failed.cause.items()
    }
    if causes == failed.cause or failed.code != "blocked-outgoing":
        return failed
    (blocked, _), (lost, advice) = _WORDS["blocked-outgoing"], _WORDS["socket-lost"]
    return replace(
        failed, code="socket-lost", message=failed.message.replace(blocked, lost), advice=advice, cause=causes
    )


def _is_unreachable(cause: dict[str, object]) -> bool:
    return cause["code"] == "blocked-outgoing" and cause.get("errno") == errno.EHOSTUNREACH and "icmp" not in cause


def _guesses(fan: Fan | None) -> bool:
    """Both NATs change ports: many of the responder's aim at one of the initiator's, drawn (core/plan.py)."""
    return fan is not None and fan.sources.count > 1 and not fan.targets.first


def late(pairs: Sequence[Pair]) -> Failed:
    """The verdict on an attempt that ended before its notification could leave: nobody had a chance to be heard."""
    ready = sum(pair.primed for pair in pairs)
    return replace(
        failure(pairs), code="time-up", advice="give a larger timeout_ms",
        message=f"the time was up before the notification was ready: {ready} of {len(pairs)} techniques were",
    )  # fmt: skip


def _unheeded(pair: Pair) -> bool:
    """The ring, which sees before any rule, saw what a kernel must answer, and ours did not.

    A SYN brings forth a SYN-ACK from a listener and in SYN_SENT alike, a SYN-ACK for our SYN makes a connection
    (RFC 9293, 3.10.7). A made socket answers neither, and IP_MINTTL keeps what comes with a TTL of 1 from others.
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


def _silence_detail(seen: Evidence, pair: Pair) -> str:
    """What of ours left, and where it died: a primer's death on its way shows that it got out."""
    said = []
    if seen.own_syn:
        said.append("our own SYN left")
    if seen.icmp is not None and seen.icmp[0] == _TIME_EXCEEDED:
        said.append(f"ours died on its way, as it should: {_icmp_words(*seen.icmp)}")
    return ", ".join(said)


def _reset_detail(seen: Evidence, pair: Pair) -> str:
    if seen.rst_ttl is None:
        return ""
    if seen.peer_ttl == seen.rst_ttl:
        return f"RST with TTL {seen.rst_ttl}, that of the peer's own packets"
    whose = f"not the peer, whose packets come with {seen.peer_ttl}: " if seen.peer_ttl is not None else ""
    hops = _hops(seen.rst_ttl)
    return f"RST with TTL {seen.rst_ttl}: {whose}its sender is {hops} {'hop' if hops == 1 else 'hops'} away"


def _icmp_detail(seen: Evidence, pair: Pair) -> str:
    return "" if seen.icmp is None else _icmp_words(*seen.icmp)


def _port_detail(seen: Evidence, pair: Pair) -> str:
    named = pair.offer.responder_port if pair.terms.initiating else pair.offer.initiator_port
    segment = "SYN-ACK" if seen.other_syn_ack else "SYN"
    return f"its {segment} came from port {seen.other_port}, not {named}"


def _errno_detail(seen: Evidence, pair: Pair) -> str:
    number = seen.send_errno if seen.send_errno is not None else seen.errno
    return "" if number is None else os.strerror(number)


def _call_detail(seen: Evidence, pair: Pair) -> str:
    return pair.fail_cause


_DETAILS: dict[str, Callable[[Evidence, Pair], str]] = {
    "reset-by-peer-side": _reset_detail, "refused-by-icmp": _icmp_detail, "from-other-port": _port_detail,
    "blocked-outgoing": _errno_detail, "socket-lost": _errno_detail, "nothing-heard": _silence_detail,
    "host-refused": _call_detail, "port-taken": _call_detail, "port-refused": _call_detail,
    "out-of-descriptors": _call_detail,
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
