#!/usr/bin/env bash
# Builds every example, runs it, and checks what it prints and how it exits. It needs the GNU tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

cargo build --examples --quiet
target=${CARGO_TARGET_DIR:-target}
bin=$(cd "$target/debug/examples" && pwd)
work=$(mktemp -d)
started=
trap '[ -z "$started" ] || kill -KILL "$started" 2>/dev/null || true; chmod -R u+rwx "$work"; rm -rf "$work"' EXIT

passed=0
failed=0
status=0

# Runs an example; nothing here should take a minute.
run() {
    local name=$1
    shift
    status=0
    timeout 60 "$bin/$name" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
}

# check WHAT COMMAND...: the command must succeed.
check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what (the example exited with $status)" >&2
        sed 's/^/  stdout: /' "$work/out" | head -20 >&2
        sed 's/^/  stderr: /' "$work/err" | head -20 >&2
    fi
}

exits() { [ "$status" -eq "$1" ]; }
out_has() { grep -qF -- "$1" "$work/out"; }
err_has() { grep -qF -- "$1" "$work/err"; }
out_is() { cmp -s "$1" "$work/out"; }
out_is_text() { [ "$(cat "$work/out")" = "$1" ]; }

# sums DIR: what hash_files should print in that directory.
sums() {
    (
        cd "$1"
        # A directory's files come where the directory does, so the slash sorts before all else.
        find . -xtype f -print0 | tr '/' '\001' | sort -z | tr '\001' '/' | xargs -0r sha256sum
    )
}

# --- hash_files ---------------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree/nested/deeper" "$tree/nested-but-not" "$tree/a dir" "$tree/empty dir"
printf 'plain\n' >"$tree/plain"
: >"$tree/empty"
printf 'deep' >"$tree/nested/deeper/file"
printf 'order' >"$tree/nested-but-not/file"
printf 'spaces' >"$tree/a dir/ two  spaces "
printf 'newline' >"$tree/new"$'\n'"line"
printf 'backslash' >"$tree/back\\slash"
printf 'star' >"$tree/*"
printf 'dash' >"$tree/-c"
printf 'bytes' >"$tree/caf"$'\xe9'
head -c 3000000 /dev/zero >"$tree/larger than a buffer"
printf 'return' >"$tree/carriage"$'\r'"return"
# Older versions of sha256sum neither write nor read this one as the others do.
sha256sum "$tree/carriage"* | grep -q '^\\' || rm "$tree/carriage"*
ln -s ../plain "$tree/nested/link to a file"
ln -s nested "$tree/link to a directory"
mkfifo "$tree/pipe"
if command -v perl >/dev/null; then
    (cd "$tree" && perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1) or die')
fi
ln -s pipe "$tree/link to a pipe"

sums "$tree" >"$work/expected"
status=0
(cd "$tree" && timeout 60 "$bin/hash_files" >"$work/out" 2>"$work/err") || status=$?
check "a tree is hashed" exits 0
check "the sums are those of sha256sum, sorted by path" out_is "$work/expected"
cp "$work/out" "$work/sums"
check "sha256sum accepts the sums" eval '(cd "$tree" && sha256sum -c --quiet "$work/sums")'
check "the summary is on stderr" err_has "$(wc -l <"$work/expected") items in "

run hash_files "$tree" --concurrency 1
check "a tree is hashed from elsewhere" exits 0
check "sha256sum accepts the paths as walked" sha256sum -c --quiet "$work/out"

ln -s tree "$work/link"
run hash_files "$work/link"
check "a link given as the tree is followed" sha256sum -c --quiet "$work/out"
check "a link given as the tree leads to all of it" eval '[ "$(wc -l <"$work/out")" -eq "$(wc -l <"$work/expected")" ]'
run hash_files "$tree/plain"
check "a single file is hashed" out_has "  $tree/plain"
run hash_files "$tree/empty dir"
check "an empty tree succeeds" exits 0
check "an empty tree has no sums" out_is /dev/null

broken=$work/broken
mkdir "$broken"
printf 'good' >"$broken/good"
ln -s nowhere "$broken/dangling"
sha256sum "$broken/good" >"$work/expected"
run hash_files "$broken"
check "a dangling link fails the run" exits 1
check "a dangling link is listed" err_has "$broken/dangling: failed after 1 attempt: No such file or directory"
check "the good file is hashed all the same" out_is "$work/expected"
check "the verdict is told" err_has "hash_files: 1 of 2 items failed, 0 allowed"
run hash_files "$broken" --min-success-ratio 0.5
check "half of the files are enough" exits 0
check "a tolerated failure is listed" err_has "$broken/dangling: failed after 1 attempt: No such file or directory"
check "the good file is hashed beside a tolerated failure" out_is "$work/expected"
run hash_files "$broken" --min-success-ratio 0.51
check "half of the files are not enough" exits 1
run hash_files "$broken" --fail-fast --concurrency 1
check "the first failure ends a run that fails fast" exits 1
check "a run that fails fast says so" err_has "fail_fast is set"
check "a run that fails fast starts nothing more" out_is /dev/null

ln -s circle "$broken/circle"
run hash_files "$broken" --min-success-ratio 0.3
check "every failure is listed, the first" err_has "$broken/dangling: failed"
check "every failure is listed, the second" err_has "$broken/circle: failed"
run hash_files "$work/not there"
check "a directory that is not there fails the run" exits 1
check "a directory that is not there is listed" err_has "$work/not there: failed after 1 attempt: No such file"
if [ "$(id -u)" -ne 0 ]; then
    mkdir -p "$work/locked/dir"
    printf 'good' >"$work/locked/file"
    chmod 000 "$work/locked/dir" "$work/locked/file"
    run hash_files "$work/locked"
    check "what cannot be read fails the run" exits 1
    check "a file that cannot be read is listed" err_has "$work/locked/file: failed after 1 attempt: Permission denied"
    check "a directory that cannot be read is listed" err_has "$work/locked/dir: failed after 1 attempt: Permission denied"
fi

refused() { exits 2 && err_has "$1" && out_is /dev/null; }
run hash_files "$tree" --concurrency 0
check "a concurrency of 0 is refused" refused "concurrency is 0"
run hash_files "$tree" --min-success-ratio 1.5
check "a ratio above 1 is refused" refused "min_success_ratio is 1.5"
run hash_files "$tree" --min-success-ratio NaN
check "a ratio that is no number is refused" refused "min_success_ratio is NaN"
run hash_files "$tree" --timeout-ms 0
check "a timeout of 0 is refused" refused "timeout_per_attempt is 0s"
run hash_files "$tree" --concurrency many
check "a word for a number is refused" refused "--concurrency"
run hash_files "$tree" --no-such-flag
check "an unknown flag is refused" refused "--no-such-flag"

status=0
"$bin/hash_files" "$tree" >/dev/full 2>"$work/err" || status=$?
check "sums that cannot be written fail the run" exits 1
check "sums that cannot be written are told" err_has "cannot print the sums: No space left on device"
mkfifo "$work/closed"
true <"$work/closed" &
exec 3>"$work/closed"
wait $!
status=0
"$bin/hash_files" "$tree" >&3 2>"$work/err" || status=$?
exec 3>&-
check "a reader that went away ends the run with 1" exits 1
check "a reader that went away is no panic" err_has "cannot print the sums: Broken pipe"

# A file with a hole takes no room on the disk and a long time to hash.
slow=$work/slow
mkdir "$slow"
printf 'quick' >"$slow/a"
truncate -s 100G "$slow/b"
printf 'never started' >"$slow/c"
sha256sum "$slow/a" >"$work/expected"

# when_so_far TEXT: waits until the progress on stderr says so.
when_so_far() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        if err_has "$1"; then return 0; fi
        sleep 0.1
    done
    return 1
}
"$bin/hash_files" "$slow" --concurrency 1 >"$work/out" 2>"$work/err" &
started=$!
check "the progress is told" when_so_far "files so far: 1"
kill -INT "$started"
status=0
wait "$started" || status=$?
started=
check "an interrupted run exits with 1" exits 1
check "an interrupted run prints what was finished" out_is "$work/expected"
check "an interrupted run says so" err_has "hash_files: cancelled after 1 of 2 items"
check "an interrupted run gives its account" err_has "1 succeeded, 0 failed, 1 cancelled"

run hash_files "$slow" --timeout-ms 900 --retries 1 --min-success-ratio 0.6
check "a slow file may be given up" exits 0
check "a slow file is listed" err_has "$slow/b: failed after 2 attempts: timed out at its limit of 900ms an attempt"
check "a retry is counted" err_has "1 retries, 2 timeouts"
check "the files beside a slow one are hashed" eval '[ "$(wc -l <"$work/out")" -eq 2 ]'

# --- clean_text ---------------------------------------------------------------------------------

run clean_text
check "clean_text tolerates one document" exits 0
check "clean_text prints clean documents" out_is_text "\
garden.html: the garden the garden in march sow peas and broad beans as soon as the soil can be worked. prune the roses.
letter.html: dear ms ångström, thank you for the parcel. it came on tuesday and nothing was broken. yours, zoë
notes.html: notes water bread lamp oil
prices.html: sum 12 < 15 salt & pepper 3 < 5
torn.html: one line that ends inside a tag
latin1.html: failed after 1 attempt: stream did not contain valid UTF-8
5 of 6 documents are clean"
mkdir "$work/texts"
printf '\xff' >"$work/texts/one.html"
printf '<p>Two</p>' >"$work/texts/two.html"
run clean_text "$work/texts"
check "clean_text does not tolerate every second document" exits 1
check "clean_text says why" err_has "clean_text: 1 of 2 items failed, 0 allowed"

# --- validate_records ---------------------------------------------------------------------------

run validate_records
check "validate_records fails fast" exits 1
check "validate_records says which record" out_has "line 6: failed after 1 attempt: the record has no id"
check "validate_records says what was valid" out_has "5 of 12 records were valid"
check "validate_records says what was not started" out_has "6 were not started"
grep -F '"id"' examples/data/records.jsonl >"$work/valid.jsonl"
run validate_records "$work/valid.jsonl"
check "validate_records accepts valid records" exits 0
check "validate_records adds up the ids" out_is_text "all 11 records are valid, and their ids add up to 72"
echo '{"id": ' >"$work/torn.jsonl"
run validate_records "$work/torn.jsonl"
check "validate_records refuses what is not JSON" exits 1
check "validate_records says that it is not JSON" out_has "line 1: failed after 1 attempt: not JSON"

# --- hyperparameter_search ----------------------------------------------------------------------

run hyperparameter_search
check "hyperparameter_search finds a model" exits 0
check "hyperparameter_search judges what can be judged" out_has "54 candidates, 48 judged, 6 not"
check "hyperparameter_search names the best candidate" out_has "best: 8 neighbours, 8 days per hour"
check "hyperparameter_search gives its error" out_has "its mean error: 1.22 degrees"

# --- load_shards --------------------------------------------------------------------------------

run load_shards
check "load_shards loads every shard" exits 0
values=$(cat examples/data/shards/*.csv | awk -F, '/^s[0-9]/ { n++; sum += $2 } END { print n, "values in 6 shards, their sum is", sum }')
check "load_shards has read every value" out_has "$values"
cp -r examples/data/shards "$work/shards"
echo 's1,1' >>"$work/shards/readings-4.csv"
run load_shards "$work/shards"
check "load_shards fails on a shard that was changed" exits 1
check "load_shards names that shard" err_has "the SHA-256 of readings-4.csv is"
rm "$work/shards/readings-4.csv"
run load_shards "$work/shards"
check "load_shards refuses lists of unequal length" exits 1
check "load_shards names both lengths" err_has "list 2 has 6 items and list 1 has 5"

echo "examples: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
