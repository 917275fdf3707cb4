"""JSON texts whose strings can go into XML.

XML has no control characters, no U+FFFE, no U+FFFF and no half of a surrogate pair. In a stanza, one of them ends the
connection of everybody who gets it, or Prosody cannot read the whole text. Everything else stays byte for byte.
"""

from __future__ import annotations

import re

REPLACEMENT = rb"\ufffd"

_ESCAPES = re.compile(
    rb"""
    \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2} |   # a whole pair
    (?P<lacking>
        \\u[dD][89a-fA-F][0-9a-fA-F]{2} |                         # half of one
        \\u[fF]{3}[eEfF] |
        \\u00(?!0[9aAdD])[01][0-9a-fA-F] |                        # a control character, but tab and line ends
        \\[bf] |
        \xef\xbf[\xbe\xbf]                                         # U+FFFE or U+FFFF as they are
    ) |
    \\.                                                          # any other escape: what is behind it is none
    """,
    re.VERBOSE | re.DOTALL,
)


def fit_for_xml(body: bytes) -> bytes:
    """The body of an answer, in UTF-8, with U+FFFD for each character that XML lacks."""
    if b"\\" not in body and b"\xef\xbf" not in body:
        return body
    return _ESCAPES.sub(lambda match: REPLACEMENT if match["lacking"] else match[0], body)
