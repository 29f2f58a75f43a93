"""How fast are verdicts on time-exceeded errors, what do they cost a foreign one, what happens past the limit?
Punches nothing: the errors quote ports of the range, but connections that are none of punchd's.

Verdicts are timed on a queue that is filled first, so that no generator is measured. Past the limit: the daemon is
stopped in the middle of a flood, so that its queue is full for certain, and goes on later. What a socket would hear of
is counted behind the daemon's rules.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench._errors import STRANGER, STRANGERS_PORT, time_exceeded
from bench._frame import Figure, Progress, Report, at_least, at_most, interleaved
from bench._street import FAR, NEAR, daemon, street
from punchd import client
from punchd.edge.native import Flows, RawSender
from punchd.edge.nfqueue import IcmpQueue
from punchd.edge.rules import Rules
from punchd.lab.namespace import Namespace
from punchd.words.addresses import PUNCH_PORTS

PORTS = 1000
STALL_MS = 50.0
"""A ping that takes longer, while errors come in as fast as one core sends them, has been stalled."""
_COUNTERS = """
add table ip counted; add counter ip counted came; add counter ip counted passed
add chain ip counted first { type filter hook prerouting priority -300; icmp type time-exceeded counter name came; }
add chain ip counted last { type filter hook input priority 0; icmp type time-exceeded counter name passed; }
"""
_INSIDE, _OUTSIDE = PUNCH_PORTS.low + 1, PUNCH_PORTS.low - 1000
_IP_RECVERR = 11  # linux/in.h


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, errors, flood_s = (3, 200, 1.0) if quick else (7, 1000, 4.0)
    with street() as (near, far):
        near.nft(_COUNTERS)
        verdicts = _verdicts(near, far, rounds, progress)
        with daemon(near) as (process, path):
            latency = interleaved(
                rounds,
                {
                    "judged": lambda: _latency_ms(near, far, _INSIDE, errors),
                    "not asked": lambda: _latency_ms(near, far, _OUTSIDE, errors),
                },
                progress,
            )
            flooded, worst_ms = _flooded(near, far, path, flood_s)
            progress(
                f"{flooded['came']} errors in {flood_s} s: {flooded['passed']} passed, worst ping {worst_ms:.1f} ms"
            )
            stopped = _stopped(near, far, process.pid)
            progress(f"{stopped['came']} errors to a stopped daemon: {stopped['passed']} passed")
    added = [one - other for one, other in zip(latency["judged"], latency["not asked"], strict=True)]
    return Report(
        [
            Figure.of("verdicts", verdicts, "1/s", at_least(100_000), note="of CPU time, in user space and kernel"),
            Figure.of("foreign error in the range", latency["judged"], "ms", note="median of each round"),
            Figure.of("foreign error outside", latency["not asked"], "ms", note="not asked about"),
            Figure.of("added", added, "ms", at_most(0.2)),
            Figure("flood", flooded["came"] / flood_s, "1/s", note="as many as the generator makes"),
            Figure("lost in the flood", flooded["came"] - flooded["passed"], "", target=at_most(0)),
            Figure("worst ping in the flood", worst_ms, "ms", target=at_most(STALL_MS)),
            Figure("errors to a stopped daemon", stopped["came"], ""),
            Figure("lost by its full queue", stopped["came"] - stopped["passed"], "", target=at_most(0)),
        ],
        conditions={"rounds": rounds, "errors": errors, "flood_s": flood_s},
    )


def _verdicts(near: Namespace, far: Namespace, rounds: int, progress: Progress) -> list[float]:
    flows = Flows(1024)
    with near.enter():
        queue = IcmpQueue(lambda packet: flows.get_quoted(packet) != 0)
        rules = Rules(PUNCH_PORTS, queue.number)
    found = interleaved(rounds, {"verdicts": lambda: _drained(far, queue)}, progress)["verdicts"]
    rules.close()
    queue.close()
    return found


def _drained(far: Namespace, queue: IcmpQueue) -> float:
    """Verdicts a second of this process's own time, over a queue that was filled before."""
    _generator(far, 0.3).wait()
    before, begun = queue.passed, time.process_time()
    while select.select([queue], [], [], 0)[0]:
        queue.read()
    return (queue.passed - before) / (time.process_time() - begun)


def _generator(far: Namespace, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench._errors", FAR, NEAR, str(PORTS), str(seconds)]
    return far.popen(command, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1], text=True)


def _latency_ms(near: Namespace, far: Namespace, port: int, errors: int) -> float:
    """From the router's send to the error queue of the socket that is meant; the median."""
    packet = time_exceeded(FAR, NEAR, port, protocol=socket.IPPROTO_UDP)
    with far.enter():
        raw = RawSender()
    with raw, near.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.bind((NEAR, port))
        sock.connect((STRANGER, STRANGERS_PORT))
        poller = select.poll()
        poller.register(sock, 0)  # POLLERR comes unasked
        took: list[float] = []
        for _ in range(errors):
            begun = time.perf_counter()
            raw.send([packet])
            assert poller.poll(1000), "the error does not arrive"
            took.append((time.perf_counter() - begun) * 1000)
            sock.recvmsg(64, 512, socket.MSG_ERRQUEUE)
            time.sleep(0.001)  # a lone error, as they come
            # cleared late: the kernel sets it after it has queued the error, and the next poll would see this one's
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return sorted(took)[len(took) // 2]


def _flooded(near: Namespace, far: Namespace, path: str, seconds: float) -> tuple[dict[str, int], float]:
    """What came and what passed, and the worst ping meanwhile."""
    before = _counted(near)
    worst_ms = 0.0
    with client.connect_blocking(path) as caller:
        generator = _generator(far, seconds)
        while generator.poll() is None:
            begun = time.perf_counter()
            caller.ping()
            worst_ms = max(worst_ms, (time.perf_counter() - begun) * 1000)
            time.sleep(0.002)
    return _since(near, before), worst_ms


def _stopped(near: Namespace, far: Namespace, pid: int) -> dict[str, int]:
    before = _counted(near)
    os.kill(pid, signal.SIGSTOP)
    _generator(far, 0.5).wait()
    os.kill(pid, signal.SIGCONT)
    return _since(near, before)


def _since(near: Namespace, before: dict[str, int]) -> dict[str, int]:
    time.sleep(0.5)  # what waits in the queue is judged
    return {name: count - before[name] for name, count in _counted(near).items()}


def _counted(near: Namespace) -> dict[str, int]:
    objects = json.loads(near.run(["nft", "-j", "list", "counters"]))["nftables"]
    return {one["counter"]["name"]: one["counter"]["packets"] for one in objects if "counter" in one}
