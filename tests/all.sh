#!/usr/bin/env bash
# Every test of every feature. Installs PostgreSQL, which the tests of the durable runs start a server of, where it is
# missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian keeps the server's programs away from the PATH.
if ! command -v initdb >/dev/null && ! compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "the tests need a PostgreSQL server, and there is no apt-get to install it: see to it that initdb is on PATH" >&2
        exit 1
    fi
    echo "installing PostgreSQL"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends postgresql >/dev/null
fi

cargo test --all-features
