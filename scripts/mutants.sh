#!/usr/bin/env bash
# Changes the pure files in every way that cargo-mutants knows, and shows each change that their unit tests do not notice.
# `bash scripts/mutants.sh` takes about an hour; `bash scripts/mutants.sh src/verdict.rs` tests one file.
set -euo pipefail
cd "$(dirname "$0")/.."

pure=(src/verdict.rs src/retry.rs src/retry/budget.rs src/limiter/rate.rs src/limiter/hold.rs src/decimal.rs src/count.rs src/zip.rs)
if [ $# -gt 0 ]; then pure=("$@"); fi

cargo mutants --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-mutants
files=()
for file in "${pure[@]}"; do files+=(--file "$file"); done
cargo mutants --package async-map-task --no-shuffle --output "${CARGO_TARGET_DIR:-target}" "${files[@]}" -- --lib
