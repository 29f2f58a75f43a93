"""Claims about PROTOCOL.md: its tables are those of the code, and its examples are what the code reads and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from punchd.wire import api
from punchd.words.errors import Code

PAGE = (Path(__file__).parent.parent / "PROTOCOL.md").read_text()


def section(heading: str) -> str:
    return re.split(r"^#{1,3} ", PAGE.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_table_of_codes_is_the_codes() -> None:
    """A code that nobody can look up is no help."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", section("## Errors"), flags=re.MULTILINE)
    assert sorted((code, code.party) for code in Code) == sorted(rows)


@pytest.mark.parametrize("call", api._CALLS)
def test_the_table_of_keys_is_the_keys(call: str) -> None:
    """With what is required."""
    rows = [line.split("|") for line in section(f"### `{call}`").splitlines() if line.startswith("| `")]
    wanted = {key.name: key.required for key in api._keys(api._CALLS[call]) if key.name != "id"}
    assert wanted == {row[1].strip(" `"): row[4].strip() == "required" for row in rows}


def test_the_transcript_is_read_and_each_line_is_json() -> None:
    """It is what people copy first."""
    lines = re.findall(r"^[AB]([<>]) (\{.*\})", PAGE, flags=re.MULTILINE)
    assert len(lines) > 5
    for direction, line in lines:
        line = line.replace("{...}", "{}")
        if direction == ">":
            assert not isinstance(api.decode_request(line.encode()), api.Refusal)
        assert json.loads(line)["id"]
