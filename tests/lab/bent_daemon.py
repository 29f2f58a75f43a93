"""punchd with one thing bent, for tests of what must hold even then: `bent_daemon.py BEND PUNCHD-OPTION ...`.

It refuses to be shipped or configured: each bend replaces one function before the ordinary program runs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import punchd.daemon.admission
import punchd.daemon.service
import punchd.edge.nfqueue
import punchd.edge.sockets
from punchd import __main__ as program
from punchd.core import nicknames, places
from punchd.words.plan import View

admission: Any = punchd.daemon.admission
service: Any = punchd.daemon.service
sockets: Any = punchd.edge.sockets
nfqueue: Any = punchd.edge.nfqueue
BENDS: dict[str, Any] = {}

# what an attempt or a connection is made of; a cycle or a forgotten timer keeps one of these alive
KINDS = ("Run", "Held", "Initiating", "Responding", "Pair", "Call", "Connection", "Session", "TimerHandle", "Task")


def bend(function: Any) -> Any:
    """Name the bend as its function."""
    BENDS[function.__name__.replace("_", "-")] = function
    return function


@bend
def deaf() -> None:
    """The ring keeps no frame: nothing that leaves is seen leaving."""
    original = service.open_host

    def open_host(**keys: Any) -> Any:
        host = original(**keys)
        assert host.ring is not None
        host.ring.detach()
        return host

    service.open_host = open_host


@bend
def buggy() -> None:
    """No socket is made for a connection: what should be done raises what nobody expects."""

    def connecting(*arguments: Any, **named: Any) -> socket.socket:
        raise ZeroDivisionError("bent on purpose")

    sockets.connecting = connecting


@bend
def no_belt() -> None:
    """Sockets without IP_MINTTL: only the verdict on ICMP errors keeps them alive."""
    original = sockets.connecting

    def connecting(*arguments: Any, **named: Any) -> socket.socket:
        sock = original(*arguments, **named)
        sock.setsockopt(socket.IPPROTO_IP, sockets.IP_MINTTL, 0)
        return sock

    sockets.connecting = connecting


@bend
def no_braces() -> None:
    """The verdict lets every ICMP error pass: only IP_MINTTL keeps sockets alive."""
    nfqueue.IcmpQueue._judge = lambda self, packet: packet.accept()


@bend
def chosen() -> None:
    """Attempts take the ports that the file beside its socket names, own and peer's, instead of drawn ones."""
    original = admission.Initiating
    file = Path(sys.argv[sys.argv.index("--socket") + 1] + ".ports")

    class Drawn:
        def draw(self, *, own_listens: bool = False, peer_listens: bool = False) -> tuple[int, int]:
            own, peer = json.loads(file.read_text())
            return own, peer

    class Chosen(original):
        def __init__(self, **keys: Any) -> None:
            super().__init__(**keys | {"ports": Drawn()})

    admission.Initiating = Chosen


@bend
def knowing() -> None:
    """Takes every peer for one behind the kind `linux`, as a descriptor that says all of it would."""
    known = View(nicknames.parse("linux"))
    places.view = lambda place, transport: known


@bend
def counted() -> None:
    """On SIGUSR1, says beside its socket what it holds in memory."""
    original = service.Service

    class Counted(original):
        def __init__(self, loop: asyncio.AbstractEventLoop, *rest: Any) -> None:
            super().__init__(loop, *rest)
            loop.add_signal_handler(signal.SIGUSR1, self.count)

        def count(self) -> None:
            gc.collect()
            counts = dict.fromkeys(KINDS, 0)
            for thing in gc.get_objects():
                if type(thing).__name__ in counts:
                    counts[type(thing).__name__] += 1
            held = {
                "flows": len(self.host.flows),
                "runs": len(self.driver.runs),
                "tokens": len(self.driver._tokens),
                "tuples": len(self.driver._tuples._taken),
                "ports": len(self.driver._tuples._ports),
                "open": sum(self.admission._open.values()),
                "sessions": len(self._sessions),
                "tasks": len(asyncio.all_tasks()),
                "fds": len(os.listdir("/proc/self/fd")),
                "blocks": sys.getallocatedblocks(),
            }
            target = Path(f"{self.config.socket}.count")
            target.with_suffix(".new").write_text(json.dumps(held | counts))
            target.with_suffix(".new").rename(target)

    service.Service = Counted


if __name__ == "__main__":
    BENDS[sys.argv.pop(1)]()
    program.main()
