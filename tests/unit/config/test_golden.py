"""Broken and unwise configs, each with what `check` says of it: line, column, setting, what is wrong, what to do.

`python -m tests.unit.config.test_golden` writes the golden files again, to be read before it is committed.
"""

import re
from pathlib import Path

import pytest

from sidecar.config.loader import examine

BROKEN, UNWISE = (Path(__file__).parent / name for name in ("broken.txt", "unwise.txt"))
CASE = re.compile(r"^=== (.+)\n((?:(?!^===|^--- ).*\n)*)(?:^--- says\n((?:(?!^===).*\n)*))?", re.M)


def cases(golden: Path) -> list[tuple[str, str, str]]:
    return [(name, text, says or "") for name, text, says in CASE.findall(golden.read_text())]


def said_of(text: str) -> str:
    """The problems; the warnings where there are none."""
    examined = examine(text, "f.yaml")
    return "".join(f"{line}\n" for line in examined.problem_lines() or examined.warning_lines())


@pytest.mark.parametrize(("name", "text", "says"), [*cases(BROKEN), *cases(UNWISE)])
def test_what_is_wrong_in_a_config_is_named_with_its_place(name: str, text: str, says: str) -> None:
    assert said_of(text) == says, name


def test_there_are_forty_broken_ones_and_each_is_refused() -> None:
    assert len(cases(BROKEN)) >= 40
    assert [name for name, text, _ in cases(BROKEN) if not examine(text, "f").problems] == []


def test_an_unwise_one_is_usable_and_warned_of() -> None:
    looked_at = {name: examine(text, "f") for name, text, _ in cases(UNWISE)}
    assert [name for name, each in looked_at.items() if each.problems or not each.warnings] == []


def test_no_message_repeats_what_may_be_a_secret() -> None:
    assert "canary" not in "".join(says for _, _, says in cases(BROKEN))


if __name__ == "__main__":
    for each in (BROKEN, UNWISE):
        each.write_text("".join(f"=== {name}\n{text}--- says\n{said_of(text)}" for name, text, _ in cases(each)))
