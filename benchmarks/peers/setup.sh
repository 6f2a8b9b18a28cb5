#!/bin/sh
# Make the peers' own environment, .bench-venv, of the exact versions in requirements.lock. Called by `make bench-peers`.
set -eu
cd "$(dirname "$0")/../.."

PYTHON=.venv/bin/python UV=.venv/bin/uv VENV=.bench-venv
LOCK=benchmarks/peers/requirements.lock
if [ -f "$VENV/.setup-done" ] && cmp -s "$LOCK" "$VENV/.setup-done"; then
    exit 0
fi
echo "Installing the peers into $VENV (PyTorch, Lightning, fastai, Keras, JAX) ..."
[ -x "$VENV/bin/python" ] || "$UV" venv --quiet --python "$PYTHON" "$VENV"
VIRTUAL_ENV="$VENV" "$UV" pip sync --quiet --compile-bytecode --require-hashes "$LOCK"
cp "$LOCK" "$VENV/.setup-done"
