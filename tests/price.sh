#!/usr/bin/env bash
# What a call site of the crate costs in code: LLVM lines, and bytes of a stripped release binary. `bash tests/price.sh`
#
# Each program has twenty call sites, each with a map function and a future of its own and, in `own_types`, with items and
# outputs of its own. The same program with one call site is subtracted: the crate itself is in both. A figure above its limit
# fails.
set -euo pipefail
cd "$(dirname "$0")/price"

declare -A most_bytes=([awaited]=35000 [parallel]=42000)
declare -A most_lines=([awaited]=15000 [parallel]=18000)
more_sites=19

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target}/price"

# The bytes of a program. The arguments after its name select the number of call sites.
bytes() {
    cargo build --quiet --release --bin "$@"
    stat -c %s "$CARGO_TARGET_DIR/release/$1"
}

# The lines of all its functions, before any optimisation.
lines() {
    rm -f "$CARGO_TARGET_DIR"/release/deps/*.ll
    cargo rustc --quiet --release --bin "$@" -- --emit=llvm-ir -C no-prepopulate-passes -C codegen-units=1 -C debuginfo=0
    awk '/^define /{inside=1} inside{n++} /^}/{inside=0} END{print n}' "$CARGO_TARGET_DIR"/release/deps/"$1"-*.ll
}

failed=0 measured=0
printf '%-10s %12s %12s %22s\n' 'a site' 'bytes' 'LLVM lines' 'bytes of the first site'
empty_bytes=$(bytes empty)
for program in by_hand awaited parallel own_types; do
    one_bytes=$(bytes "$program" --features one) one_lines=$(lines "$program" --features one)
    site_bytes=$((($(bytes "$program") - one_bytes) / more_sites))
    site_lines=$((($(lines "$program") - one_lines) / more_sites))
    printf '%-10s %12s %12s %22s\n' "$program" "$site_bytes" "$site_lines" "$((one_bytes - empty_bytes))"
    measured=$((measured + 1))
    if [ -v "most_bytes[$program]" ] && { [ "$site_bytes" -gt "${most_bytes[$program]}" ] || [ "$site_lines" -gt "${most_lines[$program]}" ]; }; then
        echo "$program may cost ${most_bytes[$program]} bytes and ${most_lines[$program]} lines a call site" >&2
        failed=1
    fi
done
echo "$measured programs measured"
exit "$failed"
