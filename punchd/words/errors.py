"""Every error code punchd can say, who must act on it, and the four exceptions that carry one.
It refuses to hold wording that depends on the case: messages are made where the failure is known."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum, unique
from typing import Any, ClassVar


class Party(StrEnum):
    """Who must act before a repeat makes sense."""

    CALLER = "caller"
    PEER = "peer"
    HOST = "host"
    US = "us"


@unique
class Code(StrEnum):
    """The table: code on the wire, who must act, and what would help when nobody knows better."""

    party: Party
    advice: str

    def __new__(cls, code: str, party: Party, advice: str) -> Code:
        member = str.__new__(cls, code)
        member._value_ = code
        member.party = party
        member.advice = advice
        return member

    # the line itself
    BAD_JSON = "bad-json", Party.CALLER, "send one JSON object per line, in UTF-8, ended by a newline"
    LINE_TOO_LONG = "line-too-long", Party.CALLER, "keep each line within 65536 bytes, its newline included"
    DESCRIPTOR_REFUSED = "descriptor-refused", Party.CALLER, "send no descriptors"
    UNKNOWN_CALL = "unknown-call", Party.CALLER, "see the table of calls in PROTOCOL.md"
    UNKNOWN_KEY = "unknown-key", Party.CALLER, "remove the key or correct its spelling"
    MISSING_KEY = "missing-key", Party.CALLER, "add the key"
    BAD_VALUE = "bad-value", Party.CALLER, "see the table of keys in PROTOCOL.md"
    # the request
    ID_IN_USE = "id-in-use", Party.CALLER, "use another id, or wait for the final reply of the open request"
    NO_SUCH_ATTEMPT = "no-such-attempt", Party.CALLER, "name an attempt that this connection opened"
    NOT_PERMITTED = "not-permitted", Party.CALLER, "start punchd with --group GROUP and join that group"
    TARGET_REFUSED = "target-refused", Party.CALLER, "name a public unicast address of the peer"
    TOO_MANY_ATTEMPTS = "too-many-attempts", Party.CALLER, "wait for open attempts to end, or cancel some"
    NO_SERVER = "no-server", Party.CALLER, "name servers in the request, or start punchd with --stun ADDRESS[:PORT]"
    ALREADY_RESPONDED = "already-responded", Party.CALLER, "ask the peer for a new notification"
    TIME_UP = "time-up", Party.CALLER, "give a larger timeout_ms, or carry the notification faster"
    CANCELLED = "cancelled", Party.CALLER, "nothing: this was asked for"
    # the other side, and the networks in between
    NOTIFICATION_BROKEN = "notification-broken", Party.PEER, "carry the notification unaltered"
    NOTIFICATION_VERSION = "notification-version", Party.PEER, "run the same version of punchd on both sides"
    NOTIFICATION_FORGED = "notification-forged", Party.PEER, "give both sides the same secret"
    PORT_REFUSED = "port-refused", Party.PEER, "let the peer choose ports of the punch range"
    NO_COMMON_TECHNIQUE = "no-common-technique", Party.PEER, "allow more techniques on either side"
    FROM_OTHER_PORT = "from-other-port", Party.PEER, "let the peer run punchctl netcheck: its NAT changes ports"
    BOTH_PORTS_CHANGE = "both-ports-change", Party.PEER, "give either side a port that stays: forward one to it"
    NOTHING_HEARD = "nothing-heard", Party.PEER, "check that the notification arrives; try another technique"
    ANSWER_UNACKNOWLEDGED = "answer-unacknowledged", Party.PEER, "try another technique"
    RESET_BY_PEER_SIDE = "reset-by-peer-side", Party.PEER, "try tcp-midstream or udp"
    REFUSED_BY_ICMP = "refused-by-icmp", Party.PEER, "look at the sender of the ICMP error in the cause"
    NO_ANSWER = "no-answer", Party.PEER, "check the servers named in the cause, or name others"
    # this host
    PORT_TAKEN = "port-taken", Party.HOST, "try again: the next attempt draws other ports"
    SOCKET_LOST = "socket-lost", Party.HOST, "look at the errno in the cause"
    NOT_CAPABLE = "not-capable", Party.HOST, "ask ping for the missing capability and the line that grants it"
    OUT_OF_DESCRIPTORS = "out-of-descriptors", Party.HOST, "raise punchd's limit of open files (ulimit -n)"
    SYN_NOT_CAPTURED = "syn-not-captured", Party.HOST, "run punchctl doctor: a local firewall drops outgoing SYNs"
    BLOCKED_OUTGOING = "blocked-outgoing", Party.HOST, "run punchctl doctor: it names the rule"
    BLOCKED_INCOMING = "blocked-incoming", Party.HOST, "run punchctl doctor: it names the rule"
    SHUTTING_DOWN = "shutting-down", Party.HOST, "try again when punchd runs again"
    HOST_REFUSED = "host-refused", Party.HOST, "look at the failed call and its errno in the cause"
    # us
    INTERNAL = "internal", Party.US, "please report it with the daemon's log"


class PunchdError(Exception):
    """A failure with a code. Never raised itself: the four children say who must act."""

    party: ClassVar[Party]
    __slots__ = ("advice", "cause", "code", "message")

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        advice: str | None = None,
        cause: Mapping[str, Any] | None = None,
    ) -> None:
        if type(self) is PunchdError:
            raise TypeError("raise one of RequestError, PeerError, HostError, Bug")
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = code.advice if advice is None else advice
        self.cause: dict[str, Any] = dict(cause or {})

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class RequestError(PunchdError):
    """The caller must act."""

    party = Party.CALLER


class PeerError(PunchdError):
    """The other side, or a network in between, must change."""

    party = Party.PEER


class HostError(PunchdError):
    """This kernel, its limits or our permissions stand in the way."""

    party = Party.HOST


class Bug(PunchdError):
    """We must act. Caught only at the top of the driver."""

    party = Party.US
