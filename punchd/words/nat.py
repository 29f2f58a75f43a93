"""What is known of a NAT, on RFC 4787's axes, and the descriptor by which a host tells its peers.
Measures nothing and concludes nothing: core/classify.py does."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .addresses import Endpoint

SAMPLES_MAX = 16
STEP_MAX = 1024


class Dependence(StrEnum):
    """RFC 4787, sections 4.1 (mapping) and 5 (filtering): what of the remote end matters to the NAT."""

    INDEPENDENT = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Allocation(StrEnum):
    """How the NAT chooses the public port of a new mapping (RFC 4787, section 4.2.1)."""

    PRESERVING = "preserving"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    UNKNOWN = "unknown"


class NatClass(msgspec.Struct, frozen=True, gc=False):
    """One transport's behaviour; TCP and UDP differ, so nobody has just one. None: not known.

    step           from one new mapping to the next, negative when ports fall; 0 unless sequential
    outlives_icmp  an ICMP error ends no mapping (RFC 4787, REQ-12; RFC 5382, REQ-9)
    takes_syn      a SYN comes in after one has gone out (RFC 5382, REQ-2)
    picks_up       a TCP session may begin in its middle, with an ACK
    drops_strays   what nobody asked for is dropped in silence, neither answered nor punished (RFC 5382, REQ-4)
    forgives       who sent a stray is heard all the same
    """

    mapping: Dependence = Dependence.UNKNOWN
    filtering: Dependence = Dependence.UNKNOWN
    allocation: Allocation = Allocation.UNKNOWN
    step: int = 0
    outlives_icmp: bool | None = None
    takes_syn: bool | None = None
    picks_up: bool | None = None
    drops_strays: bool | None = None
    forgives: bool | None = None


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One mapping that the NAT made: when, for which port of the host, and which public port it took."""

    at_ms: int
    """Milliseconds since 1970, by the host's own clock."""
    local_port: int
    public_port: int


class Face(msgspec.Struct, frozen=True, gc=False):
    """How a host looks from outside, over one transport, from the one port that it keeps for punching."""

    local_port: int
    public: Endpoint
    nat: NatClass
    samples: tuple[Sample, ...] = ()
    """In the order of time, all at `public.address`; none where ports are preserved: nothing is to be predicted."""


class Descriptor(msgspec.Struct, frozen=True, gc=False):
    """What a peer needs to know of a host before it punches towards it. At least one face.

    host     the host's own address, for peers behind the same NAT
    made_ms  when it was made, in milliseconds since 1970 by the host's clock; no sample is younger
    ttl      hops that clear all of the host's own NATs, if it knows
    """

    host: str
    made_ms: int
    tcp: Face | None = None
    udp: Face | None = None
    ttl: int | None = None
