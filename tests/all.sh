#!/usr/bin/env bash
# Every test of every feature. Installs what a feature's server needs where it is missing; no feature
# needs one yet.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --all-features
