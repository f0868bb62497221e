#!/bin/sh
# Installs those of the named Debian packages that are not installed; touches nothing when all are.
missing=""
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "The tests need these packages (Debian's names):$missing" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  as_root="env DEBIAN_FRONTEND=noninteractive"
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
  as_root="sudo env DEBIAN_FRONTEND=noninteractive"
else
  echo "The tests need some more packages. As root, run:" >&2
  echo "    apt-get install -y$missing" >&2
  exit 1
fi
$as_root apt-get update -q && $as_root apt-get install -y -q --no-install-recommends $missing
