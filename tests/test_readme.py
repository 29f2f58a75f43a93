"""README.md and docs/ stay true: their tables come from the code, their links lead somewhere, their commands exist.
It refuses to judge prose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench import _page
from punchd.core.techniques import TECHNIQUES
from punchd.words.errors import Code

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])


def test_error_table_is_the_codes_own() -> None:
    """What to do on an error is said in one place, and a new code is not forgotten."""
    rows = [f"| `{code}` | {code.party} | {code.advice} |" for code in Code]
    found = README.partition("<!-- errors: begin -->\n")[2].partition("<!-- errors: end -->")[0].splitlines()
    assert rows == found, "put this between the marks:\n" + "\n".join(rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A file that moves takes the reader's way with it."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert [] == missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_dev_exist(page: Path) -> None:
    """The first thing that a newcomer types must work."""
    known = set(re.findall(r"^    (\w+)\)", (ROOT / "dev").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\./dev (\w+)", page.read_text(encoding="utf-8")))
    assert set() == named - known


def test_every_technique_has_its_line() -> None:
    """The tables of techniques are complete."""
    assert set(TECHNIQUES) == set(re.findall(r"^\| \[([\w-]+)\]\(punchd/core/techniques", README, re.MULTILINE))


def test_measurements_are_those_recorded() -> None:
    """A number in the README is one that somebody measured, and a new record does not leave the old ones standing."""
    said = json.loads(_page.RECORD.read_text(encoding="utf-8")) if _page.RECORD.exists() else None
    found = README.partition(_page.BEGIN)[2].partition(_page.END)[0]
    assert _page.section(said) == found, "./dev bench --record writes both"
