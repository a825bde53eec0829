#!/usr/bin/env bash
# Every test of every feature. Installs PostgreSQL, which the tests of the durable runs start a server of, where it is
# missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/package.sh

package initdb postgresql

cargo test --all-features
