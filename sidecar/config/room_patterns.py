"""Which of the room patterns fits a name: `*` any text, `?` one character, all else is literal.

All patterns are searched together, one character of the name after the other. A number has one bit for each place in
each pattern: set if the characters so far lead there (the Shift-And method). There is nothing to go back to, so the
time is linear in the length of the name, whatever the patterns. A regular expression for `*-*-*-vip` needed 1 s to
refuse a name of 1,000 hyphens, several times a request, and meanwhile nobody else got an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence


class RoomPatterns:
    """Patterns in their order; the first that fits wins."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Brackets are literal, because the rooms of a tenant are named `[tenant]room`."""
        begins, stars, wildcards = list[int](), list[int](), list[int]()
        literals: defaultdict[str, list[int]] = defaultdict(list)
        self._ends: dict[int, int] = {}
        bit = 0
        for index, pattern in enumerate(patterns):
            begins.append(bit)
            for character in pattern:
                if character == "*":
                    stars.append(bit)
                    continue
                bit += 1
                (wildcards if character == "?" else literals[character]).append(bit)
            self._ends[bit] = index
            bit += 1
        self._begin = _number(begins, bit)
        self._stay = _number(stars, bit)
        self._any = _number(wildcards, bit)
        self._after = {character: _number(bits, bit) | self._any for character, bits in literals.items()}
        self._end = _number(self._ends, bit)

    def first_fit(self, name: str) -> int | None:
        """The index of the first pattern that fits the whole name."""
        places, after, anything, stay = self._begin, self._after, self._any, self._stay
        for character in name:
            if not places:
                return None
            places = (places << 1) & after.get(character, anything) | places & stay
        fitting = places & self._end
        return self._ends[(fitting & -fitting).bit_length() - 1] if fitting else None


def _number(bits: Iterable[int], size: int) -> int:
    """The number with these bits set. Built as bytes: adding one bit at a time would be quadratic."""
    content = bytearray(size // 8 + 1)
    for bit in bits:
        content[bit // 8] |= 1 << bit % 8
    return int.from_bytes(content, "little")
