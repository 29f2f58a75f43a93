"""Two namespaces and the wire between them, for benches that need no NAT; and C programs built beside their bench.
Models no network: what needs NATs uses the lab."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from punchd.lab.namespace import Namespace, batch, new_prefix, remove

NEAR, FAR = "10.66.3.1", "10.66.3.2"
_CSRC = Path(__file__).parents[1] / "csrc"


@contextmanager
def street() -> Iterator[tuple[Namespace, Namespace]]:
    """The near host, where punchd is, and the far one."""
    prefix = new_prefix()
    near, far = (Namespace(f"{prefix}{side}", address, echo=None) for side, address in (("n", NEAR), ("f", FAR)))
    try:
        batch([f"netns add {near.name}", f"netns add {far.name}"], inside=None, echo=None)
        batch([f"link add eth0 type veth peer name eth0 netns {far.name}"], inside=near.name, echo=None)
        for host in (near, far):
            batch(
                [f"addr add {host.address}/24 dev eth0", "link set lo up", "link set eth0 up"],
                inside=host.name, echo=None,
            )  # fmt: skip
        near.run(["ping", "-c1", "-W2", FAR], check=False)
        yield near, far
    finally:
        near.stop_children()
        far.stop_children()
        remove([near.name, far.name])


@contextmanager
def built(source: Path, *more: str) -> Iterator[Path]:
    """A C program for the length of the block, with these files of csrc/ in it."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / source.stem
        files = [source, *(_CSRC / f"{name}.c" for name in more)]
        subprocess.run(["gcc", "-O2", "-Wall", "-o", program, *files], check=True)
        yield program
