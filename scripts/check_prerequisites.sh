#!/bin/sh
# Is everything here that `make` cannot install by itself? When not, says the one thing to do and fails.
# With --line, only prints that thing.
line="apt-get install -y python3 python3-venv python3-dev g++ make git"
if [ "$1" = --line ]; then
  echo "$line"
  exit 0
fi

python=${PYTHON:-python3}
missing=""
need() { missing="$missing${missing:+, }$1"; }

if ! command -v "$python" >/dev/null 2>&1; then
  need "python3"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  need "python3 >= 3.10 (this is $("$python" -c 'import platform; print(platform.python_version())'))"
else
  "$python" -c 'import venv, ensurepip' 2>/dev/null || need "python3-venv"
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    need "python3-dev"
fi
if ! command -v g++ >/dev/null 2>&1; then
  need "g++"
elif [ "$(g++ -dumpversion | cut -d. -f1)" -lt 11 ]; then
  need "g++ >= 11 (this is $(g++ -dumpversion))"
fi
for tool in make git; do
  command -v $tool >/dev/null 2>&1 || need $tool
done

[ -z "$missing" ] && exit 0
echo "Missing: $missing. As root, run:" >&2
echo "    $line" >&2
exit 1
