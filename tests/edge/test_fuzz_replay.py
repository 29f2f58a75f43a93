"""The fuzz targets over their committed corpora, whole and cut at each byte, under gcc's sanitizers.
It looks for nothing new: csrc/fuzz/run.sh does, with clang.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
NAMES = ("checksum", "options", "segment", "frame", "filter", "flows", "sieve", "siphash")
PURE = [CSRC / f"{name}.c" for name in NAMES]
FLAGS = [
    "-std=c11",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in (CSRC / "fuzz").glob("fuzz_*.c"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The parsers, compiled once for all targets."""
    folder = tmp_path_factory.mktemp("pure")
    subprocess.run(["gcc", *FLAGS, "-c", *PURE, CSRC / "fuzz" / "replay.c"], cwd=folder, check=True)
    return sorted(folder.glob("*.o"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_invariant_holds_over_the_corpus(target: str, pure: list[Path], tmp_path: Path) -> None:
    """What a fuzzer once found must stay fixed on every machine, also those without clang."""
    program = tmp_path / target
    source = CSRC / "fuzz" / f"fuzz_{target}.c"
    subprocess.run(["gcc", *FLAGS, "-o", program, source, *pure], check=True)
    corpus = CSRC / "fuzz" / "corpus" / target
    done = subprocess.run([program, corpus], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"{len(list(corpus.iterdir()))} files\n" == done.stdout


def test_every_target_is_run_by_the_script() -> None:
    """A target that run.sh forgets is not fuzzed."""
    line = next(line for line in (CSRC / "fuzz" / "run.sh").read_text().splitlines() if "|| targets=(" in line)
    assert TARGETS == sorted(line.split("targets=(")[1].rstrip(")").split())
