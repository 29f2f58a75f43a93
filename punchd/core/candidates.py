"""By which ways to a peer: its public endpoints in the caller's order, and past the NAT that both sides share.
Sends nothing and asks no kernel: whether an address is on our own link is admission's question.

Peers that show one public address are behind one NAT, their own or a carrier's. Such a NAT may turn nothing around
(hairpin, RFC 4787, section 6), so the peer's own address is tried besides, if it can be that of a neighbour. It need
not be: two homes behind one carrier bear equal private addresses, and a descriptor may lie. So a way within is for
techniques alone whose every word is proven by the nonce (WITHIN): whoever stands there by chance can't answer, hears
no SYN, and nothing that it serves is ever connected to. Decision 0024 has the threat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from punchd.core import places
from punchd.words.addresses import is_private
from punchd.words.notification import OTHERS_MAX
from punchd.words.outcomes import Failed
from punchd.words.plan import Row
from punchd.words.requests import Place

WAYS_MAX = 4
WITHIN = frozenset({"tcp-midstream", "udp"})
TRUSTED = WITHIN | {"tcp-direct"}
"""Where the operator allows private targets, what connects to whoever listens, too: it needs no privilege."""


class Way(msgspec.Struct, frozen=True, gc=False):
    """`own` is where the peer sees us, and aims at in turn; `peer` is where to send. Within: no NAT comes between."""

    own: Place
    peer: Place
    within: bool = False


def neighbour(owns: Sequence[Place], peers: Sequence[Place], transport: str) -> str | None:
    """The private address of a peer that shows our own public one."""
    publics = {places.address(own, transport) for own in owns}
    named = {peer.address for peer in peers if peer.descriptor is None}
    for peer in peers:
        if peer.descriptor is not None and places.address(peer, transport) in publics:
            host = peer.descriptor.host
            return host if is_private(host) and host not in named else None
    return None


def ways(
    owns: Sequence[Place], peers: Sequence[Place], transport: str, *, local: str, is_near: Callable[[str], bool]
) -> list[Way]:
    """The first is the caller's first choice; the way within comes last, though it is to be tried first.

    local    our own address
    is_near  whether a private address may be a neighbour's
    """
    found: dict[tuple[str, str], Way] = {}
    for peer in peers:
        for own in owns[:OTHERS_MAX]:  # the first one and two others; the private address is the third
            found.setdefault((places.address(own, transport), places.address(peer, transport)), Way(own, peer))
    host = neighbour(owns, peers, transport)
    within = [Way(Place(local), Place(host), within=True)] if host is not None and is_near(host) else []
    return list(found.values())[: WAYS_MAX - len(within)] + within


def rows_within(way: Way, names: Sequence[str], *, trusted: bool) -> list[Row]:
    """The plan of a way within: nothing has to be opened, so nothing but who speaks first matters.

    trusted  the operator allows private targets
    """
    fit = TRUSTED if trusted else WITHIN
    return [
        Row(name, remote=way.peer.address, public=way.own.address, reason="both are behind one NAT: not through it")
        for name in names
        if name in fit
    ]


_SILENT = frozenset({"nothing-heard", "reset-by-peer-side", "refused-by-icmp"})


def told(failed: Failed, public: str, *, tried: bool) -> Failed:
    """The verdict on an attempt between two peers that both bear this public address.

    tried  the way within was tried, too
    """
    if failed.code not in _SILENT:
        return failed
    message = f"both peers are behind the same NAT, {public}, which brings nothing back inside (no hairpin)"
    if tried:
        message += ", and nothing came from the peer's private address"
        advice = (
            "two homes behind one carrier can't reach each other without hairpin; within one network look for what "
            "keeps hosts apart (client isolation of an access point, a firewall on either host)"
        )
    else:
        advice = (
            "let both sides call `endpoint` and give both descriptors to `initiate`: they carry the private addresses; "
            "where the two hosts are in different subnets, start punchd with --allow-private on both"
        )
    return replace(failed, message=f"{message}; {failed.message}", advice=advice)
