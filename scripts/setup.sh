#!/bin/sh
# Make the virtual environment of the exact versions in requirements.lock. Called by `make setup`.
set -eu

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Conviction needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1)." >&2
    echo "Name another one: make setup PYTHON=python3.12" >&2
    exit 1
}
if [ ! -x "$VENV/bin/python" ]; then
    echo "Making the virtual environment in $VENV ..."
    "$PYTHON" -m venv "$VENV" || {
        rm -rf "$VENV"
        echo "Python's venv module does not work here. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
if [ "$("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi
echo "Installing the packages of requirements.lock (about 6 GB with torch; a minute or so the first time) ..."
export VIRTUAL_ENV="$VENV"
"$VENV/bin/uv" pip sync --quiet --require-hashes --compile-bytecode requirements.lock
"$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
echo "Ready: $VENV/bin/conviction"
