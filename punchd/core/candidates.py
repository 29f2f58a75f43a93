"""Where to aim at a peer whose descriptor is known: at its public endpoint, or past the NAT that both share.
Sends nothing and admits nothing: whether an address may be a target at all is admission's question.

Peers with one public address are behind one NAT, their own or a carrier's. Between them lies no place where a primer of
a small TTL could die: the private endpoints come first, since they need no hole, then the shared NAT must turn packets
around (hairpin, RFC 4787, section 6). Behind a carrier's NAT, both may be at home in one network all the same, or in
two that bear equal private addresses; nobody can tell, and a stranger there has no secret to answer with.

A carrier with several public addresses may show one to each: such peers count as apart, and the punch towards the
public endpoint is the same as by hairpin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from punchd.core.ttl import LEAST
from punchd.words.addresses import Endpoint, why_no_target
from punchd.words.nat import Descriptor, Face


class Nearness(StrEnum):
    """How two hosts stand to each other."""

    APART = "apart"
    SAME_NAT = "behind one NAT"
    SAME_CARRIER = "behind one carrier's NAT"


class Aim(StrEnum):
    """What kind of way a target is."""

    PRIVATE = "private"
    HAIRPIN = "hairpin"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Target:
    """`own` is what the peer sees, and aims at in turn; `peer` is where to send."""

    aim: Aim
    own: Endpoint
    peer: Endpoint


def nearness(own: Descriptor, peer: Descriptor) -> Nearness:
    """By their public addresses, over whichever transport; more hops than one NAT takes mean a carrier's."""
    if not _publics(own) & _publics(peer):
        return Nearness.APART
    layered = any(one.ttl is not None and one.ttl > LEAST for one in (own, peer))
    return Nearness.SAME_CARRIER if layered else Nearness.SAME_NAT


def targets(own: Descriptor, peer: Descriptor, transport: str, *, allow_private: bool) -> tuple[Target, ...]:
    """In the order to try them; none where one side has no face over this transport."""
    near, far = _face(own, transport), _face(peer, transport)
    if near is None or far is None:
        return ()
    if nearness(own, peer) is Nearness.APART:
        return (Target(Aim.PUBLIC, near.public, far.public),)
    private = Target(Aim.PRIVATE, Endpoint(own.host, near.local_port), Endpoint(peer.host, far.local_port))
    hairpin = Target(Aim.HAIRPIN, near.public, far.public)
    reachable = allow_private and own.host != peer.host and _is_private(peer.host)
    return (private, hairpin) if reachable else (hairpin,)


def _face(descriptor: Descriptor, transport: str) -> Face | None:
    return {"tcp": descriptor.tcp, "udp": descriptor.udp}[transport]


def _publics(descriptor: Descriptor) -> set[str]:
    return {face.public.address for face in (descriptor.tcp, descriptor.udp) if face is not None}


def _is_private(address: str) -> bool:
    """A descriptor that lies must not send us to a third party, nor to a loopback or broadcast address."""
    refused = why_no_target(address, allow_private=False) is not None
    return refused and why_no_target(address, allow_private=True) is None
