"""The README's lines of code are a whole program: both sides of them punch through two NATs.
It refuses to repair them: what is run is what a reader copies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from punchd.lab.pair import Pair
from punchd.lab.topology import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

ROOT = Path(__file__).parents[2]


def test_readme_code_connects_two_hosts_and_says_hello(tmp_path: Path) -> None:
    """People copy it before they read anything else."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert 1 == len(blocks)
    program = tmp_path / "program.py"
    program.write_text(
        blocks[0]
        + """
import sys
async def main() -> None:
    side = call(sys.argv[1], "bob") if sys.argv[2] == "call" else be_called(sys.argv[1])
    print((await talk(await side)).decode(), end="")
asyncio.run(main())
"""
    )
    with Lab("linux", "linux", echo=None) as lab, Pair(lab) as pair:
        server = lab.server.popen(
            [sys.executable, str(ROOT / "examples/rendezvous.py"), "--port", "7000"], stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        server.stdout.readline()
        sides = [
            host.popen(
                ["env", f"PUNCHD_SOCKET={pair.socket_path(role)}", sys.executable, str(program), "192.0.2.10", verb],
                stdout=subprocess.PIPE,
                text=True,
            )
            for role, host, verb in (("b", lab.b, "be called"), ("a", lab.a, "call"))
        ]
        heard = [side.communicate(timeout=20)[0] for side in sides]
    assert heard[0].startswith("hello from 10.0.1.2:")
    assert heard[1].startswith("hello from 10.0.2.2:")
