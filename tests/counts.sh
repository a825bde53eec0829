#!/usr/bin/env bash
# The counts of benches/counts.rs against their limits: instructions for an item, and how a long run's memory grows.
# Installs valgrind where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v valgrind >/dev/null; then
    root=()
    if [ "$(id -u)" -ne 0 ]; then root=(sudo); fi
    echo "installing valgrind"
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends valgrind >/dev/null
fi

cargo bench --quiet --bench counts
