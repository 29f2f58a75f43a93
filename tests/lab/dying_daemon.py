"""A mother of daemons that kill -9 themselves after a given number of performed effects.

It refuses to load twice: one process imports everything and forks for each order, a JSON line on stdin with
`socket` and `after` (0: never). It answers `{"pid": ...}`, and `{"ended": pid}` once the kernel has buried it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import punchd.core.attempt
import punchd.daemon.service
from punchd.daemon.config import Config

service: Any = punchd.daemon.service
attempt: Any = punchd.core.attempt
_LINGER_S = 0.05  # the effects after the linger count too, and must not cost a second each


def mortal(after: int) -> None:
    """Let each driver of this process die with its effect number `after`."""
    original, performed = service.Driver, 0

    def wrap(perform: Any) -> Any:
        def performing(run: Any, effect: Any) -> None:
            nonlocal performed
            try:
                perform(run, effect)
            finally:
                performed += 1
                if performed == after:
                    os.kill(os.getpid(), signal.SIGKILL)

        return performing

    class Driver(original):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self._table = {kind: wrap(perform) for kind, perform in self._table.items()}

    class Service(service.Service):
        def status(self) -> dict[str, Any]:
            """Lingering attempts too: their effects are still to come."""
            return super().status() | {"runs": len(self.driver.runs)}

    service.Driver, service.Service = Driver, Service


def main() -> None:
    attempt.LINGER_S = _LINGER_S
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            try:
                os.dup2(2, 1)  # stdout is for the mother's words alone
                mortal(order["after"])
                service.run(Config(socket=order["socket"]))
            finally:
                os._exit(0)
        print(json.dumps({"pid": child}), flush=True)
        os.waitpid(child, 0)
        print(json.dumps({"ended": child}), flush=True)


if __name__ == "__main__":
    main()
