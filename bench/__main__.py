"""./dev bench [NAME ...]: runs the named measurements, or says which there are.
Measures nothing itself: one file per question lies beside it."""

import runpy
import sys
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main() -> None:
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        for name in unknown:
            print(f"bench: there is no {name!r}", file=sys.stderr)
        print("usage: ./dev bench NAME ...\n")
        for name in NAMES:
            first = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8").split("\n", 1)[0]
            print(f"  {name:<14} {first.strip(chr(34))}")
        sys.exit(2 if unknown else 0)
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    for name in wanted:
        sys.argv = [name, *options]
        runpy.run_module(f"bench.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
