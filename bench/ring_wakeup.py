"""Which TPACKET version wakes its reader sooner: V2 or V3, alone and in bursts?
It measures in a veth pair of its own and leaves nothing; the answer is docs/decisions/0001.

    ./dev bench ring_wakeup
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench._frame import Figure, Progress, Report, number, share

RINGS = {"V2": ("2", "4096"), "V3, 4 KiB blocks": ("3", "4096"), "V3, 64 KiB blocks": ("3", "65536")}
SENDER = """
import random, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({bursts}):
    time.sleep(random.uniform(0.001, 0.004))
    for _ in range({size}):
        sock.sendto(b"x" * 40, ("10.66.3.2", 9))
"""


def run_once(near: str, far: str, program: Path, *, ring: tuple[str, str], size: int, frames: int) -> list[int]:
    """Latencies in ns of so many frames, sent in bursts of this size."""
    reader = subprocess.Popen(
        ["ip", "netns", "exec", far, program, *ring, str(frames)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reader.stderr is not None
    reader.stderr.readline()
    script = SENDER.format(bursts=frames // size + 1, size=size)
    subprocess.run(["ip", "netns", "exec", near, "python3", "-c", script], check=False)
    out, _ = reader.communicate(timeout=30)
    return sorted(int(line) for line in out.split())


def run_in(near: str, far: str, program: Path, frames: int, progress: Progress) -> list[Figure]:
    figures = []
    for size in (1, 64):
        for name, ring in RINGS.items():
            us = [ns / 1000 for ns in run_once(near, far, program, ring=ring, size=size, frames=frames)]
            worst = f"p99 {number(share(us, 0.99))} us, {len(us)} frames"
            figures.append(Figure(f"{name}, burst {size}", share(us, 0.5), "us", (us[0], us[-1]), note=worst))
            progress(f"{name}, burst {size}: {number(share(us, 0.5))} us")
    return figures


def run(*, quick: bool, progress: Progress) -> Report:
    frames = 128 if quick else 640
    near, far = f"pdc{os.getpid()}-x", f"pdc{os.getpid()}-y"
    setup = [
        f"netns add {near}", f"netns add {far}",
        f"-n {near} link add eth0 type veth peer name eth0 netns {far}",
        f"-n {near} addr add 10.66.3.1/24 dev eth0", f"-n {far} addr add 10.66.3.2/24 dev eth0",
        f"-n {near} link set eth0 up", f"-n {far} link set eth0 up",
    ]  # fmt: skip
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "ring_wakeup"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", program, source], check=True)
        try:
            for line in setup:
                subprocess.run(["ip", *line.split()], check=True)
            time.sleep(0.2)
            return Report(run_in(near, far, program, frames, progress), conditions={"frames": frames})
        finally:
            for name in (near, far):
                subprocess.run(["ip", "netns", "del", name], check=False)
