"""What a probe of the own NAT asks of its sockets, what they report, and what it finds.
Holds no behaviour; `slot` numbers the probe's local ports, 0 is the one that will be punched from."""

from __future__ import annotations

import msgspec

from .addresses import Endpoint
from .events import Cancelled, DeadlinePassed
from .nat import Face, Sample

TRANSACTION_LEN = 12


class Change(msgspec.Struct, frozen=True, gc=False):
    """CHANGE-REQUEST (RFC 5780, section 7.2): please answer from another port, and from another address."""

    address: bool
    port: bool


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A Binding response. `mapped` is None in an error response, `error` in any other."""

    transaction: bytes
    mapped: Endpoint | None = None
    other: Endpoint | None = None
    """OTHER-ADDRESS: the server's second address and port."""
    error: int | None = None
    refused: bool | None = None
    """Whether strays that the server sent us, as asked for, came back to it as errors; None: it didn't say."""


class KeptPort(msgspec.Struct, frozen=True, gc=False):
    """A port that an `endpoint` request holds, and that punches may share."""

    transport: str
    address: str
    port: int


# -- effects -----------------------------------------------------------------------------------------------------------


class OpenPort(msgspec.Struct, frozen=True, gc=False):
    """Take a free local port for the slot; answered by PortOpened or PortFailed."""

    slot: int


class ClosePort(msgspec.Struct, frozen=True, gc=False):
    """Close the slot's port with all its connections."""

    slot: int


class Dial(msgspec.Struct, frozen=True, gc=False):
    """TCP only: connect from the slot's port; answered by Reached or LineEnded."""

    slot: int
    server: Endpoint


class HangUp(msgspec.Struct, frozen=True, gc=False):
    """TCP only: close that connection."""

    slot: int
    server: Endpoint


class Listen(msgspec.Struct, frozen=True, gc=False):
    """TCP only: let the slot's port be called; whoever does is told by Called."""

    slot: int


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Send a Binding request; answered by Answered, by LineEnded, or not at all."""

    slot: int
    server: Endpoint
    transaction: bytes
    change: Change | None = None


class Observed(msgspec.Struct, frozen=True, gc=False):
    """Tell the caller of one mapping as soon as it is seen."""

    observation: Observation


class Found(msgspec.Struct, frozen=True, gc=False):
    """Tell the caller what was found, or that it has changed since."""

    finding: Finding


class Lost(msgspec.Struct, frozen=True, gc=False):
    """Tell the caller that the mapping is no longer confirmed by any server."""


ProbeEffect = OpenPort | ClosePort | Dial | HangUp | Listen | Ask | Observed | Found | Lost


# -- events ------------------------------------------------------------------------------------------------------------


class PortOpened(msgspec.Struct, frozen=True, gc=False):
    """The slot has this port."""

    slot: int
    port: int


class PortFailed(msgspec.Struct, frozen=True, gc=False):
    """No port could be had for the slot."""

    slot: int
    cause: str


class Reached(msgspec.Struct, frozen=True, gc=False):
    """The TCP connection stands."""

    slot: int
    server: Endpoint


class LineEnded(msgspec.Struct, frozen=True, gc=False):
    """The connection failed or was closed, or the kernel refused to send there."""

    slot: int
    server: Endpoint
    cause: str


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A Binding response came in; `source` is who sent it."""

    slot: int
    source: Endpoint
    answer: Answer


class Called(msgspec.Struct, frozen=True, gc=False):
    """TCP only: somebody has connected to the slot's port, and the connection is closed again."""

    slot: int
    source: Endpoint


ProbeEvent = PortOpened | PortFailed | Reached | LineEnded | Answered | Called | DeadlinePassed | Cancelled


# -- findings ----------------------------------------------------------------------------------------------------------


class Observation(msgspec.Struct, frozen=True, gc=False):
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


class Silence(msgspec.Struct, frozen=True, gc=False):
    """A server that did not answer, and why if anybody said."""

    server: Endpoint
    cause: str


class Finding(msgspec.Struct, frozen=True, gc=False):
    """All that one transport's probe has to say; without a face, no server answered."""

    transport: str
    face: Face | None
    observations: tuple[Observation, ...]
    silences: tuple[Silence, ...]
