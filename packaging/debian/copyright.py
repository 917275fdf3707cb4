"""Prints debian/copyright: the licence of the sidecar, and of each Python package that is installed with it.

copyright.py FOLDER, with the Python of the environment; FOLDER: where that is on the machine. The texts are those that
the packages bring with them. Debian has the Apache licence in /usr/share/common-licenses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

OWN = "prosody-sidecar"
HEADER = f"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {OWN}
Comment: The Python packages that the sidecar needs are part of this package,
 as their authors published them on https://pypi.org."""
APACHE = re.compile(r"^\s*Apache License\s*\n\s*Version 2\.0.*?(END OF TERMS AND CONDITIONS\s*\n.*\Z|\Z)", re.M | re.S)
APACHE_IS = "Licensed under the Apache License, Version 2.0.\nThe text is in /usr/share/common-licenses/Apache-2.0.\n"
CLASSIFIERS = {"MIT": "MIT License", "BSD": "BSD License", "PSF-2.0": "Python Software Foundation License"}


def stanzas(folder: str) -> Iterator[str]:
    """The paragraphs of the file."""
    found = {each.name: each for each in distributions()}
    yield HEADER
    yield stanza("*", "The authors of prosody-sidecar", "MIT", Path("LICENSE").read_text())
    for name in sorted(set(found) - {OWN}, key=str.lower):
        each = found[name]
        written = [file.read_text() for file in texts(each)]
        if not written:
            sys.exit(f"{name} brings no text of its licence")
        where = " ".join(f"{folder}/lib/python*/{part}" for part in places(each))
        shown = "\n".join(APACHE.sub(APACHE_IS, text) for text in written)
        yield stanza(where, owners(each, "\n".join(written)), f"{licence(each)}-{name}", shown)


def texts(package: Distribution) -> list[Path]:
    """The files with licences."""
    wanted = re.compile(r"\.dist-info/(licenses/.*|(LICEN[CS]E|NOTICE|COPYING)[^/]*)$")
    return sorted(Path(str(file.locate())) for file in package.files or () if wanted.search(str(file)))


def places(package: Distribution) -> list[str]:
    """Its folders and files, at the top of site-packages."""
    tops = {file.parts[0] + ("/*" if len(file.parts) > 1 else "") for file in package.files or ()}
    return [f"site-packages/{top}" for top in sorted(tops) if not top.startswith((".", "__pycache__"))]


def licence(package: Distribution) -> str:
    """Its short name, without spaces."""
    said = package.metadata
    classified = " ".join(said.get_all("Classifier", ()))
    known = (short for short, long in CLASSIFIERS.items() if long in classified)
    name = said["License-Expression"] or said["License"] or next(known, "licence")
    return re.sub(r"\s+", "-", str(name))


def owners(package: Distribution, text: str) -> str:
    """Who holds the rights, one a line."""
    lines = re.findall(r"^\s*(?:Copyright|\(c\)|©)\s+((?:\(c\)|©|\d).*\S)\s*$", text, re.M | re.I)
    said = package.metadata
    author = said["Author"] or said["Author-email"] or f"the authors of {said['Name']}"
    return "\n".join(dict.fromkeys(lines)) or str(author)


def stanza(files: str, owners: str, licence: str, text: str) -> str:
    """One paragraph: a line that is empty is written as a dot."""
    inner = "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())
    held = owners.replace("\n", "\n           ")
    return f"Files: {files}\nCopyright: {held}\nLicense: {licence}\n{inner}"


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(stanzas(sys.argv[1].lstrip("/"))) + "\n")
