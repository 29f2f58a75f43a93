"""Several ways to a peer in one attempt: whose address stands where, and what is told when none of them led there.
It refuses to choose ways: tests/core/test_candidates.py and tests/daemon/test_admission.py do.
"""

from __future__ import annotations

import random

from acts import A, B, begun, feed, notified, those
from msgspec.structs import replace

from punchd.core.initiating import Initiating
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.terms import Terms
from punchd.words.effects import Finish, HandOver, Notify, OpenPair
from punchd.words.events import DeadlinePassed, EffectFailed, Signal, SignalSeen
from punchd.words.outcomes import Failed
from punchd.words.plan import Row


def within(*techniques: str, others: tuple[str, ...] = ("10.0.1.2",), public: str = B) -> Responding:
    """Of each technique an offer for the initiator's private address, and then one for its public one."""
    word = notified(*(name for name in techniques for _ in (0, 1)))
    offers = tuple(replace(offer, at=1 - place % 2) for place, offer in enumerate(word.offers))
    return Responding(
        terms=Terms(False, word.nonce), local="10.0.1.3", notification=replace(word, offers=offers, others=others,
        responder=public), runnable=frozenset(techniques), ports=Ports(random.Random(2)), timeout_s=10.0, now=0.0,
    )  # fmt: skip


def test_each_way_has_pairs_of_its_own() -> None:
    """The notification names our address by each; an entry of a list differs in the peer's alone."""
    rows = [Row("udp", remote="10.0.1.3", public="10.0.1.2"), Row("udp"), Row("udp", remote="192.0.2.77")]
    attempt = Initiating(
        terms=Terms(True, bytes(16)), local="10.0.1.2", public=A, remote=B, rows=rows, ports=Ports(random.Random(1)),
        timeout_s=10.0, now=0.0,
    )  # fmt: skip
    effects = begun(attempt)
    assert ["10.0.1.3", B, "192.0.2.77"] == [effect.remote_address for effect in those(OpenPair, effects)]
    (notify,) = those(Notify, effects)
    assert (A, ("10.0.1.2",)) == (notify.notification.initiator, notify.notification.others)
    assert [1, 0, 0] == [offer.at for offer in notify.notification.offers]
    assert (B, "10.0.1.3", "192.0.2.77") == attempt.targets
    fire, commit = (SignalSeen(0, signal, 22001, 23001) for signal in (Signal.FIRE, Signal.COMMIT))
    (handed,) = those(HandOver, feed(attempt, 0.1, fire, commit))
    assert handed.outcome is not None
    assert "10.0.1.3" == handed.outcome.remote.address


def test_a_way_within_takes_no_turn() -> None:
    """Nothing is lost where the private address is a stranger's."""
    attempt = within("udp")
    opened = those(OpenPair, attempt.begin())
    assert ["10.0.1.2", A] == [effect.remote_address for effect in opened]


def test_an_address_that_admission_has_struck_out_is_passed_over() -> None:
    """Places of offers stay what they are: the second message counts them."""
    attempt = within("udp", others=("",))
    assert [A] == [effect.remote_address for effect in those(OpenPair, attempt.begin())]
    assert (A,) == attempt.targets


def test_a_moved_pair_stays_on_its_way() -> None:
    """The port that was drawn for us is taken, on either side of the matter."""
    attempt = within("udp")
    attempt.begin()
    taken = EffectFailed(0, "OpenPair", "port-taken", "refused")
    (again,) = those(OpenPair, attempt.step(taken, 0.0))
    assert "10.0.1.2" == again.remote_address


def test_silence_behind_one_nat_is_told_as_such() -> None:
    """To both sides."""
    for public, words in ((A, "behind the same NAT"), (B, "nothing came")):
        attempt = within("udp", public=public)
        attempt.begin()
        (finish,) = those(Finish, attempt.step(DeadlinePassed(), 10.0))
        assert isinstance(finish.outcome, Failed)
        assert words in finish.outcome.message
