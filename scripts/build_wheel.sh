#!/bin/bash
# build_wheel.sh OUT: the source distribution, and a manylinux wheel built from it, for the python on PATH.
set -euo pipefail
out=$1
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT

rm -rf "$out"
python -m build --no-isolation --outdir "$raw" .
mkdir -p "$out"
mv "$raw"/*.tar.gz "$out"
python -m auditwheel repair --wheel-dir "$out" "$raw"/*.whl
ls -l "$out"
