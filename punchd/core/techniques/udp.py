"""udp: the same conversation in datagrams (Ford, Srisuresh, Kegel 2005, with a low-TTL primer).
Passes NATs whose mapping for the drawn port is known to both; needs no privilege.

      A            NAT A           NAT B            B
      |---PRIME---->|--x             |              |
      |<------------|----------------|<----FIRE-----|
      |---ANSWER----|--------------->|------------->|
      |<------------|----------------|<---COMMIT----|
"""

from __future__ import annotations

from punchd.core.pair import UDP_HOLE_S, Pair
from punchd.core.script import Script, never, signal
from punchd.core.terms import secret_tag
from punchd.words.effects import OpenDatagram
from punchd.words.events import ANSWER, COMMIT, FIRE, PRIME

NAME = "udp"
NEEDS: frozenset[str] = frozenset()


def initiator(pair: Pair) -> Script:
    _open(pair)
    yield from pair.opens(lambda ttl: pair.tell(PRIME, ttl=ttl), signal(FIRE, COMMIT), UDP_HOLE_S)
    pair.tell(ANSWER)
    pair.say_answered()
    yield from pair.repeat(signal(FIRE), again=lambda: pair.tell(ANSWER))


def responder(pair: Pair) -> Script:
    _open(pair)
    yield from pair.fires(UDP_HOLE_S)
    pair.say_proven()
    yield from pair.until(never)


def _open(pair: Pair) -> None:
    pair.do(OpenDatagram, secret_tag(pair.terms.nonce, "udp"))
    pair.connected = True
