#!/usr/bin/env bash
# What a call site of the crate costs in code: LLVM lines, and bytes of a stripped release binary. `bash tests/price.sh`
#
# Each program has twenty call sites of distinct types; an empty one is subtracted. A figure above its limit fails.
set -euo pipefail
cd "$(dirname "$0")/price"

# The most bytes and LLVM lines of a call site. They are a twentieth above what was measured.
declare -A most_bytes=([awaited]=81800 [parallel]=102000)
declare -A most_lines=([awaited]=46000 [parallel]=55500)
sites=20

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target}/price"
cargo build --quiet --release

bytes() { stat -c %s "$CARGO_TARGET_DIR/release/$1"; }

# The lines of all functions, before any optimisation.
lines() {
    cargo rustc --quiet --release --bin "$1" -- --emit=llvm-ir -C no-prepopulate-passes -C codegen-units=1 -C debuginfo=0
    awk '/^define /{inside=1} inside{n++} /^}/{inside=0} END{print n}' "$CARGO_TARGET_DIR"/release/deps/"$1"-*.ll
}

rm -f "$CARGO_TARGET_DIR"/release/deps/*.ll
empty_bytes=$(bytes empty) empty_lines=$(lines empty)
failed=0
printf '%-10s %12s %12s\n' '' 'bytes' 'LLVM lines'
for program in by_hand awaited parallel; do
    site_bytes=$((($(bytes "$program") - empty_bytes) / sites))
    site_lines=$((($(lines "$program") - empty_lines) / sites))
    printf '%-10s %12s %12s\n' "$program" "$site_bytes" "$site_lines"
    if [ -v "most_bytes[$program]" ] && { [ "$site_bytes" -gt "${most_bytes[$program]}" ] || [ "$site_lines" -gt "${most_lines[$program]}" ]; }; then
        echo "$program may cost ${most_bytes[$program]} bytes and ${most_lines[$program]} lines a call site" >&2
        failed=1
    fi
done
exit "$failed"
