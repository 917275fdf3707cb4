#!/bin/bash
# Writes packaging/requirements.lock: the newest versions that setup.cfg accepts, for every Python, with their hashes,
# and with the extra `shared`, since nothing can be added to a package later.
# setuptools, of pyproject.toml, builds the sidecar itself and is not installed with it.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=.cache/uv
if [ ! -x $tool/bin/uv ]; then
    python3 -m venv $tool
    $tool/bin/python3 -m pip install --disable-pip-version-check --quiet uv
fi
{
    sed -n '/^install_requires =/,/^$/ s/^    //p; /^shared =/,/^[^s ]/ s/^    //p' setup.cfg
    sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml
} | $tool/bin/uv --quiet pip compile - --upgrade --universal --python-version 3.11 --only-binary :all: \
    --emit-build-options --generate-hashes --no-annotate --custom-compile-command "make lock" \
    --output-file packaging/requirements.lock >/dev/null
git --no-pager diff --stat -- packaging/requirements.lock
