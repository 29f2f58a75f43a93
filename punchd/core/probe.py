"""Finds how one transport of this host looks from outside, and keeps that mapping alive while anybody wants it.
Holds no descriptor, no clock and no dice; asks for effects and never performs them.

Theory of operation
-------------------
All questions are STUN Binding requests (RFC 8489) from few local ports, the probe's slots:

    slot 0   the port that will be punched from. Asks every server and, where a server names a second address or
             port (RFC 5780), those too: what they see settles the mapping, and its first answer is the endpoint.
    slot 1,2 Once the mapping is settled, CHANGE-REQUEST tells how the NAT filters: 1 has talked to the server alone,
             2 to its second address alone. Over TCP they are listening then, and a server that plays (ours does)
             calls them, or says that it called in vain. A NAT that filters may block whoever sends such strays. So
             they come from the second address, and from no named one: the caller's rendezvous may be there, too.
             Afterwards that address is heard again, or not: whether the NAT forgives who sends strays. Over UDP slot 2
             asks it while the last strays are still waited for; over TCP it says by itself that it called in vain.
             Slot 1 would open the way for a late stray. Our server says, too, whether an error came back to it.
    slot 3.. as soon as one mapping has not kept its port: further mappings, in pairs back to back so that the step
             shows, the pairs apart in time so that foreign traffic shows too.

Over UDP a request is repeated after 0.5 s, doubling, at most 7 times until any server has answered and 3 times
from then on: the net works, so silence is an answer. Over TCP a server gets as long as those 3, and is asked again each
second, as often (docs/decisions/0028). A question is open until it is answered, or given up with a cause; when none is
open, or at `expires`, the finding is made.

States: Probing -> Keeping -> Done. Keeping asks one server from slot 0 in turns; when it is silent, the next one.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf

from msgspec.structs import replace

from punchd.core import classify
from punchd.core.ports import Dice
from punchd.core.question import CHANGES, SILENCES, Purpose, Question, called_since, misfit, verdict
from punchd.words.addresses import Endpoint, why_no_target
from punchd.words.events import Cancelled, DeadlinePassed
from punchd.words.nat import SAMPLES_MAX, Allocation, Dependence, Face, NatClass
from punchd.words.probing import (
    TRANSACTION_LEN,
    Answer,
    Answered,
    Ask,
    Called,
    ClosePort,
    Dial,
    Finding,
    Found,
    HangUp,
    LineEnded,
    Listen,
    Lost,
    Observation,
    Observed,
    OpenPort,
    PortFailed,
    PortOpened,
    ProbeEffect,
    ProbeEvent,
    Reached,
    Silence,
)

RTO_S = 0.5  # RFC 8489, section 6.2.1
REASK_S = 1.0  # over TCP
RTO_NEAR_S = 0.1  # the least where the round trip was measured
SENDS_MAX = 7
SENDS_HEARD_MAX = 3
LINE_PATIENCE_S = 3.5  # what the three requests over UDP come to
PACE_S = 0.01  # between the first requests of a probe
STRAYED_RTOS = 4  # after the first of the requests that bring strays the last of the three has done so
SAMPLE_PORTS = 8
PAIR_GAP_S = 0.12  # the longer, the better is the rate of foreign mappings known; core/predict.py
EXPLORED_MAX = 2  # servers whose second address is asked too
KEEP_S = 15.0  # RFC 8445, section 11
RETRY_S = 3.0  # after a keepalive without an answer, or a connection that its server has closed


class State(Enum):
    """Where a probe stands.

    PROBING  questions are open; leads to KEEPING, or to DONE
    KEEPING  the finding is told; the mapping is refreshed; leads to DONE by Cancelled alone
    DONE     all ports are closed; nothing matters any more
    """

    PROBING = auto()
    KEEPING = auto()
    DONE = auto()


_HOME, _FAR, _NEAR, _FIRST_SAMPLE = 0, 1, 2, 3
_TESTS = {
    _NEAR: Purpose.OTHER_PORT,
    _FAR: Purpose.OTHER_ADDRESS,
}  # a NAT that blocks would end the former by the latter


class Probe:
    """One transport's probe."""

    def __init__(
        self,
        *,
        transport: str,
        servers: tuple[Endpoint, ...],
        local: str,
        dice: Dice,
        timeout_s: float,
        keep: bool,
        now: float,
        epoch_ms: float,
        allow_private: bool = False,
        keep_s: float = KEEP_S,
    ) -> None:
        """`epoch_ms` is what to add to `now`, in milliseconds, to get milliseconds since 1970."""
        self.transport, self.local, self.state = transport, local, State.PROBING
        self.servers, self.expires = servers, now + timeout_s
        self.finding: Finding | None = None
        self._dice, self._keep, self._keep_s = dice, keep, keep_s
        self._epoch_ms, self._allow_private = epoch_ms, allow_private
        self._now = now
        self._questions: list[Question] = []
        self._ports: dict[int, int] = {}
        self._opening: set[int] = set()
        self._lines: set[tuple[int, Endpoint]] = set()
        self._observations: list[Observation] = []
        self._order: dict[Observation, tuple[float, int]] = {}
        self._explored = 0
        self._twins: tuple[Endpoint, Endpoint] | None = None
        """A server, and its end whose address and port are others."""
        self._sampling = False
        self._keepers: dict[Endpoint, Endpoint] = {}
        """Who may be asked to keep the mapping, the present one first, and what each saw last."""
        self._keep_at = inf
        self._lost = False
        self._effects: list[ProbeEffect] = []

    @property
    def done(self) -> bool:
        return self.state is State.DONE

    @property
    def deadline(self) -> float | None:
        """When `step` wants a DeadlinePassed; None once done."""
        if self.done:
            return None
        last = self.expires if self.state is State.PROBING else self._keep_at
        return min([last, *(question.due for question in self._questions if question.open)])

    def begin(self) -> list[ProbeEffect]:
        """The first effects."""
        for at, server in enumerate(self.servers):
            self._plan(Purpose.MAPPING, _HOME, server, after_s=at * PACE_S)
        self._advance()
        return self._take()

    def step(self, event: ProbeEvent, now: float) -> list[ProbeEffect]:
        """Take one event, return what is to be done about it, in order."""
        if self.done:
            return []
        self._now = now
        match event:
            case PortOpened():
                self._opening.discard(event.slot)
                self._ports[event.slot] = event.port
                for question in self._of_slot(event.slot):
                    if question.due == inf:
                        question.due = now
            case PortFailed():
                self._opening.discard(event.slot)
                for question in self._of_slot(event.slot):
                    self._give_up(question, event.cause)
            case Reached():
                self._lines.add((event.slot, event.server))
                for question in self._of_line(event.slot, event.server):
                    self._ask(question)
            case LineEnded():
                self._on_line_ended(event)
            case Answered():
                self._on_answered(event)
            case Called():
                self._on_called(event)
            case DeadlinePassed():
                pass  # _advance looks at the time, whatever the event
            case Cancelled():
                self._close(from_slot=_HOME)
                self.state = State.DONE
        if not self.done:
            self._advance()
        return self._take()

    # -- events ----------------------------------------------------------------------------------------------------

    def _on_line_ended(self, event: LineEnded) -> None:
        self._lines.discard((event.slot, event.server))
        for question in self._of_line(event.slot, event.server):
            self._give_up(question, event.cause)
        if self.state is State.KEEPING and next(iter(self._keepers)) == event.server:
            self._keep_at = min(self._keep_at, self._now + RETRY_S)

    def _on_answered(self, event: Answered) -> None:
        answer = event.answer
        for question in self._of_slot(event.slot):
            if question.transaction == answer.transaction and question.sends:
                break
        else:
            return  # late, doubled, or nobody's
        question.refused = answer.refused
        why = misfit(question, event.source, answer)
        if why is not None:
            self._give_up(question, why)
            if self.transport == "tcp" and why != SILENCES["tcp"]:  # it may drop what came along with this one
                for other in self._of_line(question.slot, question.server):
                    self._give_up(other, why)
            return
        question.answered = True
        if question.purpose is Purpose.KEEP:
            self._on_kept(question, answer)
            return
        if question.purpose is Purpose.OTHER_ADDRESS:
            self._spare()
        if question.slot in _TESTS:
            return
        observation = self._observe(question, answer)
        if question.purpose is Purpose.MAPPING:
            self._explore(question.server, answer.other)
        if observation.public.port != observation.local.port and not self._sampling:
            self._sample(question.server)

    def _on_called(self, event: Called) -> None:
        """Only the server's own ends count: anybody may call an open port."""
        for question in self._of_slot(event.slot):
            if question.purpose in CHANGES and self._twins is not None and event.source.port != question.server.port:
                question.answered = question.answered or event.source.address == self._twins[1].address

    def _spare(self) -> None:
        """The second address was let in, so it has sent no stray, and needs no forgiveness."""
        for question in self._questions:
            if question.purpose is Purpose.FORGIVEN and question.open:
                self._give_up(question, "nothing was a stray")

    def _observe(self, question: Question, answer: Answer) -> Observation:
        assert answer.mapped is not None
        rtt_ms = round((self._now - question.asked_at) * 1000, 1) if question.sends == 1 else None
        at_ms = round(self._epoch_ms + question.asked_at * 1000)
        local = Endpoint(self.local, self._ports[question.slot])
        observation = Observation(self.transport, question.server, local, answer.mapped, at_ms, rtt_ms)
        self._observations.append(observation)
        self._order[observation] = question.asked_at, self._questions.index(question)
        self._effects.append(Observed(observation))
        if len(self._observations) == 1:  # the net works: nobody is waited for as if it might not
            for waiting in self._questions:
                if waiting.sends or waiting.dialled:
                    waiting.due = min(waiting.due, self._now + LINE_PATIENCE_S)
                    waiting.until = min(waiting.until, self._now + LINE_PATIENCE_S)
        return observation

    def _explore(self, server: Endpoint, other: Endpoint | None) -> None:
        """Ask the server's other ends too, unless it sends us where nobody may be sent."""
        if other is None or other == server or server not in self.servers or self._explored >= EXPLORED_MAX:
            return
        if not other.port or why_no_target(other.address, allow_private=self._allow_private) is not None:
            return
        self._explored += 1
        known = {question.server for question in self._questions if question.purpose is Purpose.MAPPING}
        ends = (
            Endpoint(server.address, other.port),
            Endpoint(other.address, server.port),
            Endpoint(other.address, other.port),
        )
        for at, end in enumerate(dict.fromkeys(ends)):
            if end not in known:
                self._plan(Purpose.MAPPING, _HOME, end, after_s=at * PACE_S)
        if self._twins is None and other.address not in {named.address for named in self.servers}:
            self._twins = server, other

    def _test_filter(self) -> None:
        """The next questions about filtering, once nothing else is open at the address that may be blocked for them."""
        if self._twins is None or self._twins[1] not in {seen.server for seen in self._observations}:
            return  # many servers claim more addresses than they serve
        server, second = self._twins
        tests = [question for question in self._questions if question.slot in _TESTS]
        busy = any(question.open and question.server.address == second.address for question in self._questions)
        if not tests and not busy:
            self._plan(Purpose.ACQUAINT, _NEAR, Endpoint(second.address, server.port))
            self._plan(Purpose.ACQUAINT, _FAR, server)
        elif tests and not any(question.open or question.purpose in CHANGES for question in tests):
            # the distance is known: silence need not take long
            rtts_s = [seen.rtt_ms / 1000 for seen in self._observations if seen.rtt_ms is not None]
            rtt_s = max(rtts_s, default=RTO_S)
            rto_s, again_s = (min(RTO_S, max(RTO_NEAR_S, times * rtt_s)) for times in (3, 1.5))
            for question in tests:
                if question.answered:
                    self._plan(_TESTS[question.slot], question.slot, question.server, rto_s=rto_s)
                    if self.transport == "tcp":
                        self._effects.append(Listen(question.slot))
                    elif question.slot == _NEAR:
                        after_s = STRAYED_RTOS * rto_s
                        self._plan(Purpose.FORGIVEN, _NEAR, question.server, after_s=after_s, rto_s=again_s)
        elif self.transport == "tcp" and tests and not any(question.open for question in tests):
            near, far = (self._test(purpose) for purpose in (Purpose.OTHER_PORT, Purpose.OTHER_ADDRESS))
            if near and far is False and Purpose.FORGIVEN not in {question.purpose for question in tests}:
                self._plan(Purpose.FORGIVEN, _NEAR, Endpoint(second.address, server.port))

    def _sample(self, server: Endpoint) -> None:
        self._sampling = True
        for number in range(SAMPLE_PORTS):
            pair = number // 2
            self._plan(Purpose.SAMPLE, _FIRST_SAMPLE + number, server, after_s=pair * PAIR_GAP_S)

    # -- questions -------------------------------------------------------------------------------------------------

    def _plan(
        self, purpose: Purpose, slot: int, server: Endpoint, *, after_s: float = 0.0, rto_s: float = RTO_S
    ) -> None:
        transaction = self._dice.randrange(1 << 8 * TRANSACTION_LEN).to_bytes(TRANSACTION_LEN, "big")
        due = self._now + after_s
        self._questions.append(Question(purpose, slot, server, transaction=transaction, due=due, rto_s=rto_s))

    def _advance(self) -> None:
        """Do what is due, and see whether all is settled."""
        if self.state is State.KEEPING and self._keep_at <= self._now:
            self._keep_at = inf
            self._questions = []  # the last keepalive has been answered or given up
            self._plan(Purpose.KEEP, _HOME, next(iter(self._keepers)))
        for question in list(self._questions):
            if question.open and question.due <= self._now:
                self._send(question)
        if self.state is State.PROBING:
            self._test_filter()
        settled = not any(question.open for question in self._questions)
        if self.state is State.PROBING and (settled or self.expires <= self._now):
            self._conclude()

    def _send(self, question: Question) -> None:
        """The question is due: to be asked first, again, or no more."""
        if question.slot not in self._ports:
            question.due = inf
            if question.slot not in self._opening:
                self._opening.add(question.slot)
                self._effects.append(OpenPort(question.slot))
        elif self.transport == "udp":
            if question.sends < self._sends_max():
                self._ask(question)
            else:
                self._give_up(question, f"no answer to {question.sends} requests")
        elif question.sends and self._now < question.until:
            self._ask(question)
        elif question.dialled:
            self._give_up(question, "no answer" if question.sends else "no connection")
        else:
            question.dialled = True
            question.asked_at = self._now
            question.due = self._patience()
            if (question.slot, question.server) in self._lines:
                self._ask(question)
            else:
                self._effects.append(Dial(question.slot, question.server))

    def _ask(self, question: Question) -> None:
        question.sends += 1
        if self.transport == "udp":
            if question.sends == 1:
                question.asked_at = self._now
            question.due = self._now + question.rto_s * 2 ** (question.sends - 1)
        else:
            question.until = self._patience() if question.sends == 1 else question.until
            last = question.sends >= self._sends_max() or question.purpose in CHANGES  # each of these is a call
            again = inf if last else self._now + REASK_S
            question.due = min(question.until, again)
        change = CHANGES.get(question.purpose)
        self._effects.append(Ask(question.slot, question.server, question.transaction, change))

    def _sends_max(self) -> int:
        return SENDS_HEARD_MAX if self._observations else SENDS_MAX

    def _patience(self) -> float:
        """Until when a TCP server is waited for."""
        heard = bool(self._observations) or self.state is State.KEEPING
        return self._now + LINE_PATIENCE_S if heard else max(self.expires, self._now + RTO_S)

    def _give_up(self, question: Question, cause: str) -> None:
        question.cause = cause
        if question.dialled and not self._of_line(question.slot, question.server):
            self._lines.discard((question.slot, question.server))
            self._effects.append(HangUp(question.slot, question.server))
        if question.purpose is Purpose.KEEP:
            self._on_not_kept()

    def _of_slot(self, slot: int) -> list[Question]:
        return [question for question in self._questions if question.slot == slot and question.open]

    def _of_line(self, slot: int, server: Endpoint) -> list[Question]:
        return [question for question in self._of_slot(slot) if question.server == server]

    # -- the end ---------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        silences = [
            Silence(question.server, question.cause or "no answer in time")
            for question in self._questions
            if question.purpose is Purpose.MAPPING and not question.answered
        ]
        self._observations.sort(key=self._order.__getitem__)  # as asked: milliseconds don't tell a pair's two apart
        home = [seen for seen in self._observations if seen.local.port == self._ports.get(_HOME)]
        self._keepers = {seen.server: seen.public for seen in home}
        face = self._face(home) if home else None
        self.finding = Finding(self.transport, face, tuple(self._observations), tuple(silences))
        self._effects.append(Found(self.finding))
        if face is None or not self._keep:
            self._close(from_slot=_HOME)
            self.state = State.DONE
            return
        self._close(from_slot=_FAR)
        self.state = State.KEEPING
        self._questions = []
        self._keep_at = self._now + self._keep_s

    def _face(self, home: list[Observation]) -> Face:
        public = home[0].public  # of the server that was asked first
        mappings = classify.distinct(self._observations)
        samples = tuple(seen.sample for seen in mappings if seen.public.address == public.address)
        allocation, step = classify.allocation(samples)
        drops, forgives = self._strays()
        nat = NatClass(
            classify.mapping(home), self._filtering(), allocation, step, drops_strays=drops, forgives=forgives
        )
        kept = samples[-SAMPLES_MAX:] if allocation is not Allocation.PRESERVING else ()
        return Face(home[0].local.port, public, nat, kept)

    def _filtering(self) -> Dependence:
        return classify.filtering(
            other_address=self._test(Purpose.OTHER_ADDRESS), other_port=self._test(Purpose.OTHER_PORT)
        )

    def _test(self, purpose: Purpose) -> bool | None:
        """Whether the changed answer to this one came."""
        asked = [question for question in self._questions if question.purpose is purpose]
        return verdict(asked[0] if asked else None, SILENCES[self.transport])

    def _strays(self) -> tuple[bool | None, bool | None]:
        """Whether the NAT drops what the second address sent unasked, and whether it hears that address since."""
        if self._test(Purpose.OTHER_ADDRESS) is not False:
            return None, None
        tests = {question.purpose: question for question in self._questions if question.slot in _TESTS}
        if Purpose.FORGIVEN in tests:
            heard = verdict(tests[Purpose.FORGIVEN], SILENCES["udp"])
        else:  # over TCP: what it says of its call comes after it
            heard = called_since(tests.get(Purpose.OTHER_PORT))
        said = {question.refused for question in tests.values() if question.refused is not None}
        return classify.strays(refused=max(said, default=None), heard=heard)

    def _close(self, *, from_slot: int) -> None:
        for slot in sorted(self._ports):
            if slot >= from_slot:
                self._effects.append(ClosePort(slot))
                del self._ports[slot]

    def _on_kept(self, question: Question, answer: Answer) -> None:
        assert self.finding is not None
        assert self.finding.face is not None
        assert answer.mapped is not None
        self._keep_at = self._now + self._keep_s
        moved = answer.mapped != self._keepers[question.server]
        self._keepers[question.server] = answer.mapped
        if moved:
            self.finding = replace(self.finding, face=replace(self.finding.face, public=answer.mapped))
        if moved or self._lost:
            self._lost = False
            self._effects.append(Found(self.finding))

    def _on_not_kept(self) -> None:
        silent = next(iter(self._keepers))
        self._keepers[silent] = self._keepers.pop(silent)
        self._keep_at = self._now + RETRY_S
        if not self._lost:
            self._lost = True
            self._effects.append(Lost())

    def _take(self) -> list[ProbeEffect]:
        effects = self._effects[:]
        self._effects.clear()
        return effects
