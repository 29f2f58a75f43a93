"""punchd that takes every peer for one behind the lab's `linux`, for a measurement of what such knowledge is worth.
Measures nothing, and is no option of punchd's: elsewhere a peer's class comes from its descriptor."""

from __future__ import annotations

from punchd import __main__ as program
from punchd.core import nicknames, places
from punchd.words.plan import View


def main() -> None:
    known = View(nicknames.parse("linux"))
    places.view = lambda place, transport: known
    program.main()


if __name__ == "__main__":
    main()
