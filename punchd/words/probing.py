"""What a probe of the own NAT asks of its sockets, what they report, and what it finds.
Holds no behaviour; `slot` numbers the probe's local ports, 0 is the one that will be punched from."""

from __future__ import annotations

from dataclasses import dataclass

from .addresses import Endpoint
from .events import Cancelled, DeadlinePassed
from .nat import Face, Sample

TRANSACTION_LEN = 12


@dataclass(frozen=True, slots=True)
class Change:
    """CHANGE-REQUEST (RFC 5780, section 7.2): please answer from another port, and from another address."""

    address: bool
    port: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A Binding response. `mapped` is None in an error response, `error` in any other."""

    transaction: bytes
    mapped: Endpoint | None = None
    other: Endpoint | None = None
    """OTHER-ADDRESS: the server's second address and port."""
    error: int | None = None


@dataclass(frozen=True, slots=True)
class KeptPort:
    """A port that an `endpoint` request holds, and that punches may share."""

    transport: str
    address: str
    port: int


# -- effects -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenPort:
    """Take a free local port for the slot; answered by PortOpened or PortFailed."""

    slot: int


@dataclass(frozen=True, slots=True)
class ClosePort:
    """Close the slot's port with all its connections."""

    slot: int


@dataclass(frozen=True, slots=True)
class Dial:
    """TCP only: connect from the slot's port; answered by Reached or LineEnded."""

    slot: int
    server: Endpoint


@dataclass(frozen=True, slots=True)
class HangUp:
    """TCP only: close that connection."""

    slot: int
    server: Endpoint


@dataclass(frozen=True, slots=True)
class Listen:
    """TCP only: let the slot's port be called; whoever does is told by Called."""

    slot: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a Binding request; answered by Answered, by LineEnded, or not at all."""

    slot: int
    server: Endpoint
    transaction: bytes
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Tell the caller of one mapping as soon as it is seen."""

    observation: Observation


@dataclass(frozen=True, slots=True)
class Found:
    """Tell the caller what was found, or that it has changed since."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Lost:
    """Tell the caller that the mapping is no longer confirmed by any server."""


ProbeEffect = OpenPort | ClosePort | Dial | HangUp | Listen | Ask | Observed | Found | Lost


# -- events ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PortOpened:
    """The slot has this port."""

    slot: int
    port: int


@dataclass(frozen=True, slots=True)
class PortFailed:
    """No port could be had for the slot."""

    slot: int
    cause: str


@dataclass(frozen=True, slots=True)
class Reached:
    """The TCP connection stands."""

    slot: int
    server: Endpoint


@dataclass(frozen=True, slots=True)
class LineEnded:
    """The connection failed or was closed, or the kernel refused to send there."""

    slot: int
    server: Endpoint
    cause: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A Binding response came in; `source` is who sent it."""

    slot: int
    source: Endpoint
    answer: Answer


@dataclass(frozen=True, slots=True)
class Called:
    """TCP only: somebody has connected to the slot's port, and the connection is closed again."""

    slot: int
    source: Endpoint


ProbeEvent = PortOpened | PortFailed | Reached | LineEnded | Answered | Called | DeadlinePassed | Cancelled


# -- findings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observation:
    """The raw datum beside every verdict: what one server saw of one local port."""

    transport: str
    server: Endpoint
    local: Endpoint
    public: Endpoint
    at_ms: int
    rtt_ms: float | None
    """None where the request had to be repeated: nobody knows which one was answered."""

    @property
    def sample(self) -> Sample:
        return Sample(self.at_ms, self.local.port, self.public.port)


@dataclass(frozen=True, slots=True)
class Silence:
    """A server that did not answer, and why if anybody said."""

    server: Endpoint
    cause: str


@dataclass(frozen=True, slots=True)
class Finding:
    """All that one transport's probe has to say; without a face, no server answered."""

    transport: str
    face: Face | None
    observations: tuple[Observation, ...]
    silences: tuple[Silence, ...]
