"""tcp-midstream: no handshake at all; both ends are put into ESTABLISHED by TCP_REPAIR.
Passes NATs that pick up a connection in its middle (Linux's nf_conntrack_tcp_loose, its default), even where every
inbound SYN is dropped; not NATs that demand a SYN first.

      A            NAT A           NAT B            B
      |---PRIME---->|--x             |              |   a bare ACK that dies; A holds no socket yet
      |             |                |              |   B makes its socket at once: a stray would be reset otherwise
      |<------------|----------------|<----FIRE-----|
      | make the socket              |              |
      |---ANSWER----|--------------->|------------->|
      |<------------|----------------|<---COMMIT----|

Timed (words/notification.py), A has its socket at once, too, and COMMIT does not wait for the ANSWER:

      |---PRIME-----|----------------|--x           |   every few milliseconds, from before B can be ready
      |   <---------|----------------|<----FIRE-----|   opens it, and is still under way when ...
      |---PRIME-----|----------------|------------->|   ... one comes through
      |<------------|----------------|<---COMMIT----|   A is heard, and hears: its proof, half a round trip after FIRE
      |---ANSWER----|--------------->|------------->|   B's, as ever

Both sequence numbers come from the notification's nonce, so nobody else can guess them. The ring hears the peer before
any rule of this host does: a side is satisfied only when its socket has heard, too.
"""

from __future__ import annotations

from punchd.core.pair import ACK_HOLE_S, Pair
from punchd.core.script import Script, never, signal
from punchd.words.effects import Materialise
from punchd.words.events import ANSWER, COMMIT, FIRE, PRIME

NAME = "tcp-midstream"
NEEDS = frozenset({"ring", "raw", "repair"})


def initiator(pair: Pair) -> Script:
    pair.number(f"{pair.offer.initiator_port}-{pair.offer.responder_port}")
    if pair.offer.timed:
        _materialise(pair)  # FIRE and COMMIT come together: a socket made on the first would miss the second
    yield from pair.opens(lambda ttl: pair.tell(PRIME, ttl=ttl), signal(FIRE, COMMIT), ACK_HOLE_S)
    if not pair.offer.timed:
        _materialise(pair)
    pair.tell(ANSWER)
    pair.say_answered(early=True)
    yield from pair.answers()
    yield from pair.until(never)


def responder(pair: Pair) -> Script:
    pair.number(f"{pair.offer.initiator_port}-{pair.offer.responder_port}")
    _materialise(pair)
    yield from pair.fires(ACK_HOLE_S)
    yield from pair.heard_by_kernel()
    pair.connected = True
    pair.say_proven()
    yield from pair.until(never)


def _materialise(pair: Pair) -> None:
    assert pair.snd_nxt is not None
    assert pair.rcv_nxt is not None
    pair.do(Materialise, pair.snd_nxt, pair.rcv_nxt)
