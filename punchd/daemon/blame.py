"""When this host itself dropped what an attempt needed: which of its rules did it.
It looks only after such a failure, in a worker thread, and once for all that fail meanwhile: it takes a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from punchd.core import verdict
from punchd.core.attempt import Attempt
from punchd.core.pair import Pair
from punchd.firewall import PUNCH_PORTS, Drop, Packet
from punchd.firewall_list import Rules, look
from punchd.words.outcomes import Failed

Tell = Callable[[Failed], None]

_SYN, _ACK, _SYN_ACK = frozenset({"syn"}), frozenset({"ack"}), frozenset({"syn", "ack"})
# An answer of ours that is kept from leaving looks like a packet of the peer's that is kept from arriving.
_SUSPECTED = {"blocked-outgoing": ("out",), "syn-not-captured": ("out",), "blocked-incoming": ("in", "out")}
# The ring sees no datagram arrive: what a rule of this host drops looks as if nothing had come.
_SILENT = ("nothing-heard", "both-ports-change")
_UNHEARD = "blocked-incoming"
_ANY_PORT = (1024, 65535)
PATIENCE_S = 2.0  # for the list of rules: the attempt's time is up already, and its caller waits for a verdict


class Blame:
    """Asks for the rules at most once at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listing: asyncio.Future[Rules] | None = None

    def concerns(self, outcome: Failed) -> bool:
        """Whether a rule of this host is suspected."""
        datagrams = any(key.startswith("udp") for key in outcome.cause)
        return outcome.code in _SUSPECTED or (datagrams and outcome.code in _SILENT)

    def find(self, attempt: Attempt, outcome: Failed, tell: Tell) -> None:
        """Later: the same outcome, with `rule` and `mend` in the cause of each pair that a rule was found for.

        Without them if the rules are not listed in time: on a busy host that takes seconds.
        """
        suspects = [_packets(attempt, pair) for pair in attempt.pairs]
        if self._listing is None or self._listing.done():
            self._listing = self._loop.run_in_executor(None, look)

        def listed(listing: asyncio.Future[Rules]) -> None:
            timer.cancel()
            tell(outcome if listing.exception() else named(outcome, suspects, listing.result()))

        def waited_for(listing: asyncio.Future[Rules]) -> None:
            if not listing.done():  # else `listed` is about to be called
                listing.remove_done_callback(listed)
                tell(outcome)

        timer = self._loop.call_later(PATIENCE_S, waited_for, self._listing)
        self._listing.add_done_callback(listed)


def named(outcome: Failed, suspects: list[list[Packet]], rules: Rules) -> Failed:
    """The outcome with what the rules do to the suspected packets of each pair, of which those come in order."""
    causes: dict[str, object] = {}
    first: tuple[Drop, str] | None = None
    for (key, cause), packets in zip(outcome.cause.items(), suspects, strict=True):
        assert isinstance(cause, dict)
        code = cause["code"]
        found, causes[key] = _worst(rules, _suspected(packets, code)), cause
        if found is not None and (found[0].sure or code not in _SILENT):
            known = {"code": _UNHEARD if code in _SILENT else code, "rule": str(found[0].rule), "mend": found[1]}
            causes[key] = cause | known
            first = first or found
    if first is None:
        return outcome if rules.unseen else verdict.no_rule(outcome)
    rule, advice = first[0].rule, first[1]
    if outcome.code in _SILENT:
        message = f"a rule of this host drops what the peer sends, it is {rule}; so {outcome.message}"
        return replace(outcome, cause=causes, code=_UNHEARD, message=message, advice=advice)
    how = "it is" if first[0].sure else "it may be"
    return replace(outcome, cause=causes, message=f"{outcome.message}; {how} {rule}", advice=advice)


def _suspected(packets: list[Packet], code: str) -> list[Packet]:
    if code in _SILENT:
        return [packet for packet in packets if packet.protocol == "udp" and packet.going == "in"]
    return [packet for packet in packets if packet.going in _SUSPECTED.get(code, ())]


def _worst(rules: Rules, packets: list[Packet]) -> tuple[Drop, str] | None:
    found = [drop for packet in packets if (drop := rules.dropped(packet)) is not None]
    return next((drop for drop in found if drop[0].sure), found[0] if found else None)


def _packets(attempt: Attempt, pair: Pair) -> list[Packet]:
    """What this pair needs to pass, in the order of suspicion."""
    own, peer = (
        (port, port) if port else several  # of a fan
        for port, several in ((pair.own_port, PUNCH_PORTS), (pair.aim_port, _ANY_PORT))
    )
    inward, outward = (
        Packet(
            what="", going=going, protocol="tcp" if pair.stream else "udp",
            local=attempt.local, remote=pair.remote or attempt.remote, local_ports=own, remote_ports=peer,
        )
        for going in ("in", "out")
    )  # fmt: skip
    if not pair.stream:
        return [replace(inward, state="established"), outward]
    listens = pair.offer.technique == "tcp-direct"
    return [
        replace(inward, flags=_SYN, state="new" if listens else "established"),
        replace(inward, flags=_SYN_ACK, state="established"),
        *([replace(inward, flags=_ACK, state="established")] if pair.numbered else []),
        replace(outward, flags=_ACK if pair.numbered else _SYN),
        replace(outward, flags=_SYN_ACK, state="established"),
        replace(outward, flags=_ACK, state="invalid"),
    ]
