"""When this host itself dropped what an attempt needed: which of its rules did it.
It looks only after such a failure, in a worker thread, and once for all that fail meanwhile: it takes a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from punchd.core.attempt import Attempt
from punchd.core.pair import Pair
from punchd.firewall import Drop, Packet
from punchd.firewall_list import Rules, look
from punchd.words.outcomes import Failed

Tell = Callable[[Failed], None]

_SYN, _ACK, _SYN_ACK = frozenset({"syn"}), frozenset({"ack"}), frozenset({"syn", "ack"})
# An answer of ours that is kept from leaving looks like a packet of the peer's that is kept from arriving.
_SUSPECTED = {"blocked-outgoing": ("out",), "syn-not-captured": ("out",), "blocked-incoming": ("in", "out")}


class Blame:
    """Asks for the rules at most once at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listing: asyncio.Future[Rules] | None = None

    def concerns(self, outcome: Failed) -> bool:
        """Whether a rule of this host is suspected."""
        return outcome.code in _SUSPECTED

    def find(self, attempt: Attempt, outcome: Failed, tell: Tell) -> None:
        """Later: the same outcome, with `rule` and `mend` in the cause of each pair that a rule was found for."""
        suspects = [_packets(attempt, pair) for pair in attempt.pairs]
        if self._listing is None or self._listing.done():
            self._listing = self._loop.run_in_executor(None, look)

        def listed(listing: asyncio.Future[Rules]) -> None:
            tell(outcome if listing.exception() else named(outcome, suspects, listing.result()))

        self._listing.add_done_callback(listed)


def named(outcome: Failed, suspects: list[list[Packet]], rules: Rules) -> Failed:
    """The outcome with what the rules do to the suspected packets of each pair, of which those come in order."""
    causes: dict[str, object] = {}
    first: tuple[Drop, str] | None = None
    for (key, cause), packets in zip(outcome.cause.items(), suspects, strict=True):
        assert isinstance(cause, dict)
        found = _worst(rules, [packet for packet in packets if packet.going in _SUSPECTED.get(cause["code"], ())])
        causes[key] = cause
        if found is not None:
            causes[key] = cause | {"rule": str(found[0].rule), "mend": found[1]}
            first = first or found
    if first is None:
        return outcome
    how = "it is" if first[0].sure else "it may be"
    return replace(outcome, cause=causes, message=f"{outcome.message}; {how} {first[0].rule}", advice=first[1])


def _worst(rules: Rules, packets: list[Packet]) -> tuple[Drop, str] | None:
    found = [drop for packet in packets if (drop := rules.dropped(packet)) is not None]
    return next((drop for drop in found if drop[0].sure), found[0] if found else None)


def _packets(attempt: Attempt, pair: Pair) -> list[Packet]:
    """What this pair needs to pass, in the order of suspicion."""
    own, peer = pair.offer.initiator_port, pair.offer.responder_port
    if not attempt.terms.initiating:
        own, peer = peer, own
    inward, outward = (
        Packet(
            what="", going=going, protocol="udp" if pair.offer.technique == "udp" else "tcp",
            local=attempt.local, remote=pair.remote or attempt.remote,
            local_ports=(own, own), remote_ports=(peer, peer),
        )
        for going in ("in", "out")
    )  # fmt: skip
    if inward.protocol == "udp":
        return [outward]
    listens = pair.offer.technique == "tcp-direct"
    return [
        replace(inward, flags=_SYN, state="new" if listens else "established"),
        replace(inward, flags=_SYN_ACK, state="established"),
        replace(outward, flags=_ACK if pair.offer.technique == "tcp-midstream" else _SYN),
        replace(outward, flags=_SYN_ACK, state="established"),
        replace(outward, flags=_ACK, state="invalid"),
    ]
