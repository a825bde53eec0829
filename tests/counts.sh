#!/usr/bin/env bash
# The counts of benches/counts.rs against their limits: instructions for an item, and how a long run's memory grows.
# Installs valgrind where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/package.sh

package valgrind valgrind
cargo bench --quiet -p benches --features paused --bench counts
