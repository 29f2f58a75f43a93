"""What attempts say on the path itself, by bare segments: what several of them say at once leaves in one call.
Decides nothing, and sends no segment of any other kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from punchd.daemon.held import Held
from punchd.daemon.run import Run
from punchd.edge import native
from punchd.words import effects as do
from punchd.words.events import WINDOWS

FULL_TTL = 64

Said = do.Tell | do.Clear


class Saying:
    """`refused` is told what the kernel did not take of what was gathered, once everything else has left."""

    __slots__ = ("_gathering", "_raw", "_refused", "_said")

    def __init__(self, raw: native.RawSender | None, refused: Callable[[Run, Said, OSError], None]) -> None:
        self._raw, self._refused = raw, refused
        self._said: list[tuple[Run, Said]] = []
        self._gathering = False

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is said within the block leaves at its end: each call of its own would wake the peer for one segment."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self._flush()

    def say(self, run: Run, held: Held, effect: Said) -> None:
        """Without a raw socket, nothing. OSError: the kernel did not take what was said alone."""
        raw, ttl = self._raw, effect.ttl or FULL_TTL
        if raw is None or held.flow is None:
            return
        run.count(effect.ttl)
        if isinstance(effect, do.Tell):
            flags, ack, window = native.FLAG_ACK, effect.ack, WINDOWS[effect.signal]
        else:
            flags, ack, window = native.FLAG_RST, 0, 0
        if not self._gathering:
            raw.send_one(held.flow, flags=flags, seq=effect.seq, ack=ack, window=window, ttl=ttl)
            return
        raw.put_bare(len(self._said), held.flow, flags=flags, seq=effect.seq, ack=ack, window=window, ttl=ttl)
        self._said.append((run, effect))
        if len(self._said) == native.BARE_MAX:
            self._flush()

    def _flush(self) -> None:
        said, self._said = self._said, []
        place, refused = 0, list[tuple[Run, Said, OSError]]()
        while place < len(said):
            assert self._raw is not None
            try:
                place += self._raw.send_bare(place, len(said) - place)
            except OSError as error:
                refused.append((*said[place], error))
                place += 1
        for one in refused:
            self._refused(*one)
