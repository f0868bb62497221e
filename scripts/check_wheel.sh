#!/bin/bash
# check_wheel.sh DIR: installs DIR's wheel in a new environment and imports it there, first with no compiler within reach,
# then on an emulated CPU without AVX, where it must choose the scalar kernels.
set -euo pipefail
wheel=$(ls "$1"/octavo-*.whl)
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT

"${PYTHON:-python3}" -m venv "$clean/venv"
"$clean/venv/bin/python" -m pip --quiet install "pip>=25.1"
"$clean/venv/bin/python" -m pip --quiet install --only-binary :all: --group light
"$clean/venv/bin/python" -m pip --quiet install --no-deps "$wheel"

# In an empty folder, so that only the installed package can be found; torch and transformers are not installed.
cd "$clean"
inside=(env -i PATH="$clean/venv/bin" HOME="$clean")
if "${inside[@]}" "$clean/venv/bin/python" -c 'import shutil, sys; sys.exit(shutil.which("g++") is None)'; then
  echo "check_wheel: a compiler is within reach; this would prove nothing" >&2
  exit 1
fi
"${inside[@]}" "$clean/venv/bin/python" -c 'import octavo, octavo._core; print("isa:", octavo._core.isa())'
"${inside[@]}" "$clean/venv/bin/octavo" --version

if [ "$(uname -m)" = x86_64 ]; then
  isa=$("${inside[@]}" "$(command -v qemu-x86_64)" -cpu Nehalem "$clean/venv/bin/python" -c 'import octavo._core; print(octavo._core.isa())')
  echo "isa on Nehalem: $isa"
  [ "$isa" = scalar ]
fi
echo "check_wheel: $(basename "$wheel") is good"
