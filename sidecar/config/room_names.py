"""What the names of Jitsi's rooms look like, and so which patterns fit none of them.

Jitsi's client makes the name of a room from the last part of the address. It removes many characters (see
below), takes the NFKC form in lower case, and percent-encodes what `encodeURIComponent` encodes, with lower case digits
(jitsi-meet, react/features/base/util/uri.ts: parseURIString, getBackendSafeRoomName). In Prosody, a room of a tenant is
named `[tenant]room` (jitsi-meet, resources/prosody-plugins/util.lib.lua).
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote, unquote

_REMOVED = frozenset(":#[]@$&'+,;=></\"")
"""Removed by the client, and never in a name as they are: `encodeURIComponent` encodes them, or Prosody refuses them.
It also removes ? * (wildcards here) and ! ( ), but these are in the name if they are encoded in the address."""

_LITERAL = re.compile(r"(?:%[0-9A-Fa-f]?(?=[*?])|[*?])|([^*?%]|%(?![0-9A-Fa-f]?[*?]))+")
"""A wildcard, a percent-encoding that a wildcard completes, or a text without these."""

_TENANT = re.compile(r"(\[)([^\]]*)(\])(.*)|()([*?][^\[\]]*)(\])(.*)|(\[)(.*\*.*)()()", re.DOTALL)
"""Bracket, tenant, bracket, room. A wildcard can stand for a bracket too."""


def why_no_name_fits(pattern: str) -> str | None:
    """A reason and the pattern to write instead; None if rooms can have such names."""
    found = _TENANT.fullmatch(pattern)
    opening, tenant, closing, room = (
        (part for part in found.groups() if part is not None) if found else ("", "", "", pattern)
    )
    why = ""
    if room.count("@") == 1 and not room.startswith("@"):
        why, room = "a pattern is compared with the name before the @", room.partition("@")[0]
    elif room.count("/") == 1 and not found and all(room.split("/")):
        why, (tenant, room) = "a room of a tenant is named [tenant]room", room.split("/")
        opening, closing = "[", "]"
    better = f"{opening}{_named(tenant)}{closing}{_named(room)}"
    if better == pattern:
        return None
    advice = f'; write "{better}"' if better else ""
    return f"{why or _why(tenant + room, better)}{advice}"


def _named(text: str) -> str:
    """The text as it is in a name; wildcards stay."""
    return "".join(_form(found[0]) if found[1] else found[0].lower() for found in _LITERAL.finditer(text))


def _form(text: str) -> str:
    kept = "".join(character for character in text if character not in _REMOVED)
    decoded = unquote(kept, errors="surrogateescape")  # a part of a character that is encoded in several bytes stays so
    normal = unicodedata.normalize("NFKC", decoded).lower()
    return quote(normal, safe="-_.~!()", errors="surrogateescape").lower()


def _why(text: str, better: str) -> str:
    odd = next((each for each in text if each in _REMOVED), None)
    if odd is not None:
        return f"Jitsi removes the character {odd}"
    odd = next((each for each in text if not each.isascii() or each.isspace()), None)
    if odd is not None:
        shown = '" "' if odd == " " else odd
        return f"the character {shown} is percent-encoded there"
    if text.lower() == better.replace("[", "").replace("]", ""):
        return "names are in lower case"
    return "only what needs it is percent-encoded there, and in one way"
