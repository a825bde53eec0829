#!/usr/bin/env bash
# Builds every example, runs it, and checks what it prints and how it exits. It needs the GNU tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C

cargo build --examples --features sqlite --quiet
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
        sed -n '1,20s/^/  stdout: /p' "$work/out" >&2
        sed -n '1,20s/^/  stderr: /p' "$work/err" >&2
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
check "a slow file is listed" err_has "$slow/b: failed after 2 attempts: timed out at the timeout_per_attempt of 900ms"
check "a retry is counted" err_has "1 retry, 2 timeouts"
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

# --- run_commands -------------------------------------------------------------------------------

# given TEXT NAME...: runs an example with that text as its standard input.
given() {
    local text=$1 name=$2
    shift 2
    status=0
    printf '%s' "$text" | timeout 60 "$bin/$name" "$@" >"$work/out" 2>"$work/err" || status=$?
}

# err_shows TEXT: as err_has, of several lines.
err_shows() { [[ $(<"$work/err") == *"$1"* ]]; }

# Each command waits for the one after it, so the last one is the first to end.
mkfifo "$work/first" "$work/second"
run run_commands --jobs 3 '
    case {} in
    1) read -r word <'"$work/first"' ;;
    2) read -r word <'"$work/second"'; echo go >'"$work/first"' ;;
    3) echo go >'"$work/second"' ;;
    esac
    echo {} on stdout
    echo {} on stderr >&2' 1 2 3
check "run_commands runs several commands at once" exits 0
check "run_commands prints in the order of the input" out_is_text "1 on stdout
2 on stdout
3 on stdout"
check "run_commands passes stderr on" eval 'head -3 "$work/err" | cmp -s - <(printf "%s on stderr\n" 1 2 3)'
check "run_commands gives its account" err_has "3 items in "

run run_commands 'for line in $(seq 3000); do echo {} $line; done' a b c
for name in a b c; do seq 3000 | sed "s/^/$name /"; done >"$work/expected"
check "the outputs are not mixed" out_is "$work/expected"

nasty=("it's" '$(id) `id` "$HOME"' 'two  words' '*' $'caf\xe9' $'new\nline' '' '{}')
run run_commands 'printf "[%s]\n"' "${nasty[@]}"
printf '[%s]\n' "${nasty[@]}" >"$work/expected"
check "arguments come through unquoted and whole" out_is "$work/expected"
run run_commands 'echo {} and {}, not $2' a
check "an argument stands wherever it is asked for" out_is_text "a and a, not"
given $'b\n\n  a b\n' run_commands 'printf "[%s]\n" {}'
check "the lines of standard input are arguments" out_is_text $'[b]\n[  a b]'
given $'echo one\n\n  \necho two >&2; echo $0 $#\n-c' run_commands
check "the lines of standard input are commands" out_is_text $'one\nsh 0'
check "a line that looks like an option is a command" err_has "-c: failed after 1 attempt: exit code 127"
run run_commands
check "nothing to do is no failure" exits 0
given 'cat' run_commands
check "the commands have no standard input" exits 0

run run_commands --jobs 1 'echo out; echo first >&2; echo oops >&2; exit {}' 0 3 0
check "a command that fails fails the run" exits 1
check "a command that fails does not stop the others" out_is_text $'out\nout\nout'
check "a command that fails is named" err_shows "exit 3: failed after 1 attempt: exit code 3
    first
    oops"
check "one failure is counted" err_has "2 succeeded, 1 failed"
given 'seq 100 >&2; exit 1' run_commands
check "of a long stderr, the end is shown" err_shows "exit code 1
    ...
    91
"
given $'kill -9 $$\nnot-a-command\n/\nexec yes' run_commands --retries 1
check "a signal is told" err_has 'kill -9 $$: failed after 2 attempts: signal: 9 (SIGKILL)'
check "a command that is not there is not tried again" err_has "not-a-command: failed after 1 attempt: exit code 127: "
check "a command that cannot be executed is not tried again" err_has "/: failed after 1 attempt: exit code 126: "
check "a command that writes without end is ended" err_has "exec yes: failed after 1 attempt: it wrote more than 64 MiB"
run run_commands --retries 1 'test -e {} || { : >{}; exit 1; }' "$work/made by the first attempt"
check "a retry may succeed" exits 0
check "a retry of a command is counted" err_has "1 retry"
run run_commands --fail-fast --jobs 1 'exit {}' 0 4 0
check "the first command that fails ends a run that fails fast" err_has "1 succeeded, 1 failed, 0 cancelled, 1 not started"

# No other process sleeps for as long as the commands here, so what is left of them can be found.
sleep_time=300.$$
left() { pgrep -f "^sleep $sleep_time"; }
# comes_true COMMAND...: waits until it is.
comes_true() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if "$@" >/dev/null; then return 0; fi
        sleep 0.1
    done
    return 1
}
none_left() { comes_true eval '! left'; }
are_left() { [ "$(left | wc -l)" -eq "$1" ]; }

# A shell, a child that heeds no SIGTERM and writes elsewhere, and a child of a child.
stubborn="(trap '' TERM; exec sleep $sleep_time >/dev/null 2>&1) & sh -c 'sleep $sleep_time & wait' & echo started >>"
run run_commands --timeout 2 --grace 1 "$stubborn {}; sleep $sleep_time" "$work/started"
check "a command over its time limit fails the run" exits 1
check "a command over its time limit is told" err_has "failed after 1 attempt: timed out at the timeout_per_attempt of 2s"
check "a command over its time limit had started others" test -s "$work/started"
check "with a command over its time limit, its children are killed" none_left
run run_commands --timeout 1s --grace 0 --retries 1 "$stubborn" "$work/started"
check "what a shell that has ended leaves behind is killed at the time limit" none_left
check "a time limit is worth a retry" err_has "1 retry, 2 timeouts"
run run_commands --timeout 1 "trap 'echo {} tidied up; exit 0' TERM; sleep $sleep_time & wait" it
check "a command may end well when it is told to" exits 0
check "a command that tidies up succeeds" out_is_text "it tidied up"
check "what it has not tidied up is killed" none_left

run run_commands "sleep $sleep_time >/dev/null 2>&1 & : {}" x
check "a command may leave a process in the background" are_left 1
left | xargs -r kill || true

mkfifo "$work/running"
run run_commands --fail-fast --jobs 2 "
    case {} in
    slow) echo go >$work/running; sleep $sleep_time & sleep $sleep_time ;;
    wrong) read -r word <$work/running; exit 1 ;;
    esac" slow wrong
check "a command that fails ends its siblings" exits 1
check "with the siblings, their children are killed" none_left

# interrupt_with SIGNAL GRACE IGNORED: starts a run and interrupts it when one of four commands has ended
# and two are running, each with three processes that ignore a signal.
interrupt_with() {
    "$bin/run_commands" --jobs 2 --grace "$2" "case {} in quick) echo done; exit ;; esac
        trap '' $3; (exec sleep $sleep_time >/dev/null 2>&1) & sh -c 'sleep $sleep_time & wait' & sleep $sleep_time" \
        quick a b c >"$work/out" 2>"$work/err" &
    started=$!
    check "six processes are running" comes_true are_left 6
    check "what a command has written is printed when it has ended" comes_true out_is_text "done"
    kill "-$1" "$started"
}
ends() {
    status=0
    wait "$started" 2>/dev/null || status=$?
    started=
}
for signal in INT TERM HUP; do
    interrupt_with "$signal" 30 USR1
    ends
    check "SIG$signal ends the run with 1" exits 1
    check "SIG$signal leaves no process" none_left
    check "SIG$signal leaves the output of what was finished" out_is_text "done"
    check "SIG$signal is told" err_has "run_commands: cancelled after 3 of 4 items"
done
interrupt_with INT 1 TERM
ends
check "commands that heed no SIGTERM are killed after the grace" none_left
check "commands that heed no SIGTERM are counted" err_has "1 succeeded, 0 failed, 2 cancelled, 1 not started"
interrupt_with INT 300 TERM
sleep 0.5
check "commands that heed no SIGTERM have a grace" are_left 6
kill -INT "$started"
ends
check "a second SIGINT ends the program" exits 130
check "a second SIGINT kills what is left" none_left

run run_commands --jobs 0 true x
check "run_commands refuses 0 jobs" refused "--jobs"
run run_commands --timeout soon true x
check "run_commands refuses a time limit that is no number" refused "not a number of seconds"
run run_commands --timeout 0 true x
check "run_commands refuses a time limit of 0" refused "timeout_per_attempt is 0s"
run run_commands --help
check "run_commands helps" out_has "find . -name"
status=0
"$bin/run_commands" echo x </dev/null >/dev/full 2>"$work/err" || status=$?
check "output that cannot be printed fails run_commands" exits 1
check "output that cannot be printed is told" err_has "cannot print the output: No space left on device"
status=0
"$bin/run_commands" 'seq 100000; : {}; exit 3' x y 2>"$work/err" | true || status=${PIPESTATUS[0]}
check "a reader that went away fails run_commands" exits 1
check "a reader that went away is told" err_has "cannot print the output: Broken pipe"
check "a command whose output nobody reads is told all the same" \
    err_has ": x; exit 3: failed after 1 attempt: exit code 3"
"$bin/run_commands" --jobs 2 'seq 100000; sleep {}' 0 "$sleep_time" 2>"$work/err" | true || true
check "a reader that went away ends the commands" none_left

# --- resize_images ------------------------------------------------------------------------------

hex() { od -An -v -tx1 | tr -d ' \n'; }
# is_whole FILE WIDTH HEIGHT: the file is a PNG or JPEG of that size, and its end is there.
is_whole() {
    local size
    case $1 in
    *.png)
        size=$(printf '%08x%08x' "$2" "$3")
        [ "$(head -c 24 "$1" | hex)" = "89504e470d0a1a0a0000000d49484452$size" ] &&
            [ "$(tail -c 12 "$1" | hex)" = 0000000049454e44ae426082 ]
        ;;
    *.jpg)
        size=$(printf '%04x%04x' "$3" "$2")
        [[ $(hex <"$1") == ffd8*ffc0001108$size*ffd9 ]]
        ;;
    *) return 1 ;;
    esac
}
# are_whole FOLDER WIDTH HEIGHT COUNT: that many pictures of that size are there, and nothing else.
are_whole() {
    local file
    [ "$(ls -A "$1" | wc -l)" -eq "$4" ] || return 1
    for file in "$1"/*; do is_whole "$file" "$2" "$3" || return 1; done
}

mkdir "$work/home"
status=0
(cd "$work/home" && timeout 60 "$bin/resize_images" >"$work/out" 2>"$work/err") || status=$?
check "resize_images makes pictures and resizes them" exits 0
check "three of 60 pictures may be broken" err_has "60 items in "
check "the others are resized" are_whole "$work/home/target/resize_images/resized" 224 224 57
for name in broken-empty.png broken-half.png broken-text.jpg; do
    check "$name is named and not tried again" \
        err_has "target/resize_images/raw/$name: failed after 1 attempt: cannot resize it: "
done
raw=$work/raw
mv "$work/home/target/resize_images/raw" "$raw"

run resize_images "$raw" "$work/small" --width 48 --height 32
check "pictures are resized from one folder to another" exits 0
check "they have the width and height that was asked for" are_whole "$work/small" 48 32 57
touch "$raw/notes.txt"
run resize_images "$raw" "$work/small" --width 16 --height 32 --min-success-ratio 0.96
check "57 of 60 are less than 0.96" exits 1
check "the verdict on the pictures is told" err_has "resize_images: 3 of 60 items failed, 2 allowed"
run resize_images "$raw" "$work/small" --width 16 --height 32 --concurrency 1
check "57 of 60 are 0.95" err_has "57 succeeded, 3 failed"
check "earlier pictures are replaced" are_whole "$work/small" 16 32 57
mkdir "$work/few"
cp "$raw/picture-00.png" "$raw/picture-01.jpg" "$work/few"
run resize_images "$work/few" "$work/wide" --width 10000 --height 1
check "a picture fits the widest shape" are_whole "$work/wide" 10000 1 2
run resize_images "$work/few" "$work/high" --width 1 --height 10000
check "a picture fits the highest shape" are_whole "$work/high" 1 10000 2
clear_pixel=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==
base64 -d <<<"$clear_pixel" >"$work/few/clear.jpg"
run resize_images "$work/few" "$work/clear"
check "a transparent picture can become a JPEG" are_whole "$work/clear" 224 224 3

# The link leads nowhere until the first attempt has failed.
ln -s ../late "$work/few/late.png"
run resize_images "$work/few" "$work/retried" --retries 1
check "a picture that cannot be read fails the run" exits 1
check "a picture that cannot be read is tried again" \
    err_has "few/late.png: failed after 2 attempts: cannot read it: No such file or directory"
"$bin/resize_images" "$work/few" "$work/retried" --retries 8 >"$work/out" 2>"$work/err" &
started=$!
check "a retry is told" when_so_far "few/late.png: attempt 1 failed, the next is in "
cp "$raw/picture-02.png" "$work/new"
mv "$work/new" "$work/late"
ends
check "a picture that can be read later is resized" exits 0
check "it is resized like the others" are_whole "$work/retried" 224 224 4
mkdir -p "$work/taken/late.png"
run resize_images "$work/few" "$work/taken" --retries 0 --min-success-ratio 0.75
check "a picture that cannot be written may be tolerated" exits 0
check "a picture that cannot be written is named" err_has "few/late.png: failed after 1 attempt: cannot write it: "
rmdir "$work/taken/late.png"
check "a picture that cannot be written leaves nothing behind" are_whole "$work/taken" 224 224 3

for signal in INT KILL; do
    rm -rf "$work/stopped"
    "$bin/resize_images" "$raw" "$work/stopped" --width 700 --height 700 >"$work/out" 2>"$work/err" &
    started=$!
    check "pictures are coming" comes_true eval 'compgen -G "$work/stopped/picture*"'
    kill "-$signal" "$started"
    ends
    check "SIG$signal ends the run" eval '[ "$status" -ne 0 ]'
    # A killed program cannot remove the temporary files, which are hidden.
    [ "$signal" = INT ] || rm -f "$work/stopped"/.*.tmp
    check "SIG$signal comes before the last picture" eval '[ "$(ls "$work/stopped" | wc -l)" -lt 57 ]'
    check "SIG$signal leaves no half picture" are_whole "$work/stopped" 700 700 "$(ls "$work/stopped" | wc -l)"
    [ "$signal" = KILL ] || check "SIGINT is told" err_has "resize_images: cancelled after "
    [ "$signal" = KILL ] || check "pictures begun before SIGINT are finished" err_has " 0 cancelled, "
done

# A limit on the size of a file kills the program in the middle of a write.
status=0
{ (
    ulimit -c 0
    ulimit -f 2
    exec "$bin/resize_images" "$raw" "$work/torn" --width 700 --height 700 >"$work/out" 2>"$work/err"
) || status=$?; } 2>/dev/null
check "a program may be killed while it writes" exits $((128 + $(kill -l XFSZ)))
check "the half of a picture is there" eval 'ls -A "$work/torn" | grep -q "tmp$"'
check "it does not have the name of a picture" eval '[ -z "$(ls "$work/torn")" ]'

run resize_images "$work/not there" "$work/small"
check "a folder that is not there is refused" refused "cannot list the folder $work/not there: No such file"
run resize_images "$raw" "$raw/../raw"
check "a folder is not resized into itself" refused "would be replaced"
run resize_images "$raw" "$raw/notes.txt"
check "a file is no folder for pictures" refused "cannot make the folder $raw/notes.txt: File exists"
run resize_images "$raw"
check "a folder for the resized pictures is required" refused "<OUTPUT>"
run resize_images --width 0
check "a width of 0 is refused" refused "--width"
run resize_images --min-success-ratio 2
check "resize_images refuses a ratio above 1" refused "min_success_ratio is 2"
run resize_images --help
check "resize_images helps" out_has "--min-success-ratio"
status=0
"$bin/resize_images" "$work/few" "$work/quiet" 2>&- || status=$?
check "nobody need read what resize_images says" exits 0

# --- pipeline -----------------------------------------------------------------------------------

status=0
(cd "$work/home" && timeout 60 "$bin/pipeline" >"$work/out" 2>"$work/err") || status=$?
check "pipeline runs over the shards" exits 0
check "every shard has its end in the account" eval '[ "$(grep -c "\.csv: done, [0-9]* readings$" "$work/out")" -eq 6 ]'
values=$(cat examples/data/shards/*.csv | grep -c '^s[0-9]')
reported=$(cat "$work"/home/target/pipeline/*.json | awk '/"readings":/ { sum += $2 } END { print sum }')
check "every reading is in a report" [ "$reported" -eq "$values" ]

# csv NAME LINE...: writes such a file to the folder $csv.
csv() {
    local name=$1
    shift
    printf '%s\n' sensor,value "$@" >"$csv/$name"
}
csv=$work/csv
reports=$work/reports
mkdir -p "$csv" "$reports/unwritable.json"
csv good.csv s1,1 s2,-4.5 s1,2 s1,6
csv last.csv s1,7
csv none.csv
csv unwritable.csv s1,1
csv word.csv s1,1 s1,many
csv short.csv s1
printf 'value,sensor\n' >"$csv/header.csv"
printf 'sensor,value\ncaf\xe9,1\n' >"$csv/latin1.csv"
printf 'not asked for\n' >"$csv/notes.txt"
run pipeline "$csv" "$reports"
check "a few broken files do not end a pipeline" exits 0
check "one account has the end of every file, whichever task it was in" out_is_text "\
$csv/good.csv: done, 4 readings
$csv/header.csv: parse failed after 1 attempt: the header is \"value,sensor\", required is \"sensor,value\"
$csv/last.csv: done, 1 readings
$csv/latin1.csv: parse failed after 1 attempt: stream did not contain valid UTF-8
$csv/none.csv: report failed after 1 attempt: there are no readings
$csv/short.csv: parse failed after 1 attempt: line 2 has no value: \"s1\"
$csv/unwritable.csv: report failed after 1 attempt: cannot write $reports/unwritable.json: Is a directory (os error 21)
$csv/word.csv: parse failed after 1 attempt: line 3 has the value \"many\": invalid float literal"
check "the first task counts its files" err_has "4 succeeded, 4 failed"
check "the second task counts what came through" err_has "2 succeeded, 2 failed"
cat >"$work/expected" <<'JSON'
{
  "s1": {
    "readings": 3,
    "min": 1.0,
    "mean": 3.0,
    "max": 6.0
  },
  "s2": {
    "readings": 1,
    "min": -4.5,
    "mean": -4.5,
    "max": -4.5
  }
}
JSON
check "a report has the figures of every sensor" cmp -s "$work/expected" <(cat "$reports/good.json" && echo)
cp "$work/out" "$work/account"
run pipeline "$csv" "$reports" --parsers 1 --writers 1
check "the account does not depend on how many work at once" out_is "$work/account"

# A report that is a pipe is not written before somebody reads it. So the second task can be held up.
new_case() {
    rm -rf "$csv" "$reports"
    mkdir "$csv" "$reports"
}
# files_ahead: how many the last two lines of the progress tell, once where they agree.
files_ahead() { sed -n 's/^files ahead: \([0-9]*\) of at most .*/\1/p' "$work/err" | tail -2 | uniq; }
new_case
for n in {10..29}; do
    csv "$n.csv" "s1,$n"
    mkfifo "$reports/$n.json"
done
"$bin/pipeline" "$csv" "$reports" --parsers 4 --writers 2 >"$work/out" 2>"$work/err" &
started=$!
check "the first task runs ahead" comes_true eval '[[ $(wc -l <"$work/err") -ge 2 && $(files_ahead) =~ ^([6-9]|10)$ ]]'
before=$(files_ahead)
told=$(wc -l <"$work/err")
check "the progress is told on" comes_true eval '[ "$(wc -l <"$work/err")" -ge "$((told + 2))" ]'
check "the first task waits for the second" [ "$(files_ahead)" = "$before" ]
for n in {10..29}; do cat "$reports/$n.json" >"$reports/$n.txt" & done
ends
check "both tasks go on when the reports are taken" exits 0
check "all of the files are reported" eval '[ "$(grep -c ": done, 1 readings$" "$work/out")" -eq 20 ]'
most=$(sed -n 's/^most files ahead: \([0-9]*\) of at most 10$/\1/p' "$work/err")
check "the first task was never further ahead than its limit" eval '[ "$before" -le "$most" ] && [ "$most" -le 10 ]'

# hold_up OPTION...: starts a pipeline with one place in each task, and waits until both are held up.
hold_up() {
    "$bin/pipeline" "$csv" "$reports" --parsers 1 --writers 1 "$@" >"$work/out" 2>"$work/err" &
    started=$!
    check "a file is reported and another one waits" when_so_far "files ahead: 2 of at most 2"
}
new_case
for n in {1..4}; do csv "$n.csv" "s1,$n"; done
rm "$csv/3.csv"
mkfifo "$reports/1.json" "$csv/3.csv"
hold_up
check "the file after them is not opened" eval '! timeout 1 bash -c ": >$csv/3.csv"'
kill -INT "$started"
timeout 60 cat "$reports/1.json" >"$work/report"
ends
check "Ctrl-C ends a pipeline with 1" exits 1
check "what was parsed before Ctrl-C is reported" out_is_text "\
$csv/1.csv: done, 1 readings
$csv/2.csv: done, 1 readings
$csv/3.csv: not parsed
$csv/4.csv: not parsed"
check "the end of the first task is the cause of the other's" \
    err_has "report: the source failed after 2 items: parse: cancelled after 2 of 4 items"
check "its reports are whole" eval 'tail -c 1 "$work/report" "$reports/2.json" | grep -c "^}" | grep -qx 2'
hold_up
for ((tries = 0; tries < 20; tries++)); do
    kill -INT "$started" 2>/dev/null || true
    sleep 0.1
done
ends
check "a second Ctrl-C ends the pipeline at once" exits 130

new_case
for n in 1 2 4; do csv "$n.csv" "s1,$n"; done
csv 3.csv s1,broken
mkfifo "$reports/1.json"
one_too_many=(--parsers 1 --writers 2 --max-failures 0)
"$bin/pipeline" "$csv" "$reports" "${one_too_many[@]}" --grace 60 >"$work/out" 2>"$work/err" &
started=$!
check "a report is under way when the first task fails" when_so_far "files ahead: 1 of at most 4"
timeout 60 cat "$reports/1.json" >"$work/report"
ends
check "a run of the first task that fails ends the second" exits 1
check "the report under way is finished" out_is_text "\
$csv/1.csv: done, 1 readings
$csv/2.csv: done, 1 readings
$csv/3.csv: parse failed after 1 attempt: line 2 has the value \"broken\": invalid float literal
$csv/4.csv: not parsed"
check "the error of the first run is told" err_has "report: the source failed after 2 items: \
parse: 1 of 4 items failed, 0 allowed; item 2 failed first, after 1 attempt"
run pipeline "$csv" "$reports" "${one_too_many[@]}" --grace 0
check "a report that is never finished does not hold up the end" exits 1
check "it is told in the account" out_has "$csv/1.csv: parsed, not reported"

# This report does not fit into the pipe, so it fails when its reader goes away.
new_case
mapfile -t sensors < <(seq 20000 | sed 's/.*/s&,1/')
csv 1.csv "${sensors[@]}"
for n in 2 3; do csv "$n.csv" "s1,$n"; done
mkfifo "$reports/1.json"
hold_up --max-failures 0
timeout 60 bash -c "true <$reports/1.json"
ends
check "a run of the second task that fails ends the first" exits 1
check "what was parsed by then is in the account" out_is_text "\
$csv/1.csv: report failed after 1 attempt: cannot write $reports/1.json: Broken pipe (os error 32)
$csv/2.csv: parsed, not reported
$csv/3.csv: not parsed"
check "its own error is told" err_has "report: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt"

run pipeline "$work/empty" "$reports"
check "a folder that is not there is refused by pipeline" refused "cannot list the folder $work/empty: No such file"
run pipeline "$csv" "$csv/1.csv"
check "a file is no folder for reports" refused "cannot make the folder $csv/1.csv: File exists"
run pipeline "$csv" "$reports" --parsers 0
check "pipeline refuses 0 parsers" refused "--parsers: concurrency is 0"
run pipeline "$csv" "$reports" --writers 0
check "pipeline refuses 0 writers" refused "--writers: concurrency is 0"
run pipeline "$tree/empty dir" "$reports"
check "an empty folder is no failure" exits 0
check "an empty folder has an empty account" out_is /dev/null
status=0
"$bin/pipeline" examples/data/shards "$reports" >/dev/full 2>"$work/err" || status=$?
check "an account that cannot be printed fails pipeline" exits 1
check "an account that cannot be printed is told" err_has "cannot print the account: No space left on device"

# to_nobody NAME ARGUMENT...: runs an example whose reader went away before it began.
to_nobody() {
    local name=$1
    shift
    true <"$work/closed" &
    exec 3>"$work/closed"
    wait $!
    status=0
    timeout 60 "$bin/$name" "$@" >&3 2>"$work/err" || status=$?
    exec 3>&-
}
to_nobody pipeline examples/data/shards "$reports"
check "a reader of the account that went away is no panic" err_has "cannot print the account: Broken pipe"
check "pipeline then exits with 1" exits 1

# --- stream_rows --------------------------------------------------------------------------------

awk 'BEGIN {
    for (id = 1; id <= 1000000; id++) {
        cents = id % 10000 * 7919 % 10000
        total = (id % 7 + 1) * cents
        printf "%d,%d,%d,%d.%02d\n", id, id % 7 + 1, cents, total / 100, total % 100
    }
}' >"$work/rows"
run stream_rows --rows 1000000
check "a million rows are streamed" exits 0
check "every row is there, in its order" out_is "$work/rows"
check "the rows are counted" err_has "1000000 items in "
rows_ahead() {
    local most
    most=$(sed -n 's/^most rows ahead: \([0-9]*\) of at most 32$/\1/p' "$work/err")
    [ "$most" -ge 1 ] && [ "$most" -le 32 ]
}
check "the source waits for the sink" rows_ahead
# memory_growth: how many kB the resident memory has grown since it was told first.
memory_growth() {
    sed -n 's/^[0-9]* rows, \([0-9]*\) kB resident$/\1/p' "$work/err" |
        awk 'NR == 1 { first = $1 } $1 > most { most = $1 } END { print most - first }'
}
# Nine hundred thousand rows follow the first look; a byte kept of each would be 879 kB.
if [ -r /proc/self/status ]; then
    check "the memory is told" eval '[ "$(grep -c "^[0-9]*00000 rows, [0-9]* kB resident$" "$work/err")" -eq 10 ]'
    check "the memory is flat" [ "$(memory_growth)" -lt 800 ]
fi
# Where a user may have a /proc of his own, it can be an empty one.
without_proc=(unshare --user --map-root-user --mount bash -c 'mount -t tmpfs none /proc && exec "$0" "$@"')
if "${without_proc[@]}" true 2>/dev/null; then
    status=0
    "${without_proc[@]}" "$bin/stream_rows" --rows 1000 --tell-every 1000 >"$work/out" 2>"$work/err" || status=$?
    check "stream_rows runs without /proc" exits 0
    check "without /proc, the memory is said not to be known" err_has "1000 rows, the resident memory is not known"
fi

# stalls: for a second, nothing is told.
stalls() {
    local told
    told=$(wc -c <"$work/err")
    sleep 1
    [ "$(wc -c <"$work/err")" -eq "$told" ]
}
# The reader takes nothing until it is told to.
mkfifo "$work/stream" "$work/go"
{
    read -r _ <"$work/go"
    cat
} <"$work/stream" >"$work/out" &
reader=$!
"$bin/stream_rows" --tell-every 1000 >"$work/stream" 2>"$work/err" &
started=$!
check "a table without an end comes" when_so_far "2000 rows, "
check "it stalls while its reader takes nothing" comes_true stalls
check "it has stalled when the pipe was full" eval '! err_has "00000 rows"'
kill -INT "$started"
echo >"$work/go"
ends
wait "$reader"
check "Ctrl-C ends a table well" exits 0
check "the source has waited for the reader" rows_ahead
rows=$(sed -n 's/.*: \([0-9]*\) succeeded, 0 failed.*/\1/p' "$work/err")
check "the rows before Ctrl-C are in the account" [ "$rows" -ge 2000 ]
head -n "$rows" "$work/rows" >"$work/expected"
check "all of the rows in the account are written" out_is "$work/expected"
sleep 60 <"$work/stream" &
reader=$!
"$bin/stream_rows" --tell-every 1000 >"$work/stream" 2>"$work/err" &
started=$!
check "a table fills the pipe" when_so_far "2000 rows, "
check "a table that nobody takes stalls" comes_true stalls
for ((tries = 0; tries < 20; tries++)); do
    kill -INT "$started" 2>/dev/null || true
    sleep 0.1
done
ends
kill "$reader"
check "a second Ctrl-C ends a table that nobody takes" exits 130

run stream_rows --rows 0
check "a table may be empty" exits 0
check "an empty table has no rows" out_is /dev/null
run stream_rows --tell-every 0
check "stream_rows refuses to tell after 0 rows" refused "--tell-every"
to_nobody stream_rows
check "a reader of the rows that went away ends the run with 1" exits 1
check "a reader of the rows that went away is no panic" err_has "stream_rows: the sink failed after "
check "a reader of the rows that went away is told" err_has " items: Broken pipe"
to_nobody stream_rows --rows 5
check "the last rows fail, too" err_has "cannot write the last rows: Broken pipe"
check "the last rows fail the run" exits 1
status=0
"$bin/stream_rows" >/dev/full 2>"$work/err" || status=$?
check "a full disk ends the run with 1" exits 1
check "a full disk is told" err_has " items: No space left on device"
status=0
"$bin/stream_rows" --rows 1000 --tell-every 1 >"$work/out" 2>&- || status=$?
check "nobody need read what stream_rows tells" exits 0

# --- resume_batch -------------------------------------------------------------------------------

batch=$work/batch
mkdir "$batch"
for n in {10..49}; do printf 'file %s\n' "$n" >"$batch/$n"; done
section=$((64 * 1024 * 1024))
big_file() { head -c "$section" /dev/zero | tr '\0' "$1" && echo 'the end'; }
big_file a >"$batch/25"
sha256sum "$batch"/* >"$work/sums"
sha256sum -c "$work/sums" >"$work/expected"
run resume_batch "$work/sums" --store "$work/runs.db" --run undisturbed
check "a batch is verified" exits 0
check "the output is that of sha256sum" out_is "$work/expected"
check "a run that nobody knows is new" err_has "run undisturbed: new"
check "nothing of a new run is recovered" eval '! err_has " recovered"'
# Nothing of this is read again.
mv "$batch" "$work/away"
run resume_batch "$work/sums" --store "$work/runs.db" --run undisturbed
check "a run that came to its end can be started again" exits 0
check "its output is the same, without its files" out_is "$work/expected"
check "what is known of it is told" err_has "run undisturbed: came to its end; 40 files verified, 0 not well"
check "all of it is recovered" err_has "40 succeeded, 0 failed, 0 cancelled, 0 not started; 0 retries, 0 timeouts, 0 panics, 40 recovered"
mv "$work/away" "$batch"

# stop_halfway SIGNAL: starts a batch whose 15th and 16th file are pipes, and stops it when it has verified the 14 before
# and a section of the 16th.
stop_halfway() {
    rm "$batch/24" "$batch/25"
    mkfifo "$batch/24" "$batch/25"
    "$bin/resume_batch" "$work/sums" --store "$work/runs.db" --run nightly --lease 1 --concurrency 2 \
        >"$work/out" 2>"$work/err" &
    started=$!
    exec 3<>"$batch/25"
    timeout 60 tr '\0' a < <(head -c "$section" /dev/zero) >&3
    check "a batch comes halfway" when_so_far "14 of 40 files, 0 of them from earlier, 64 MiB of large ones"
    if [ "$1" = KILL ]; then
        cp "$work/err" "$work/err of the holder"
        run resume_batch "$work/sums" --store "$work/runs.db" --run nightly --lease 1
        check "a run that another process has is refused" exits 1
        check "who has it is told" err_has "the store failed after 0 items: run \`nightly\` is held by $(uname -n)/$started/"
        check "a run that is refused prints nothing" out_is /dev/null
        mv "$work/err of the holder" "$work/err"
    fi
    kill "-$1" "$started"
    ends
    exec 3>&-
    rm "$batch/24" "$batch/25"
    echo 'file 24' >"$batch/24"
}
for signal in KILL INT; do
    stop_halfway "$signal"
    # Whoever reads them again finds them changed.
    for n in {10..23}; do echo changed >"$batch/$n"; done
    big_file b >"$batch/25"
    run resume_batch "$work/sums" --store "$work/runs.db" --run nightly --lease 1
    check "after SIG$signal the batch goes on" exits 0
    check "14 files are not read again after SIG$signal" err_has "0 retries, 0 timeouts, 0 panics, 14 recovered"
    check "the output is that of an undisturbed run after SIG$signal" out_is "$work/expected"
    if [ "$signal" = KILL ]; then
        check "a killed run is known" err_has "run nightly: running, or killed a moment ago; 14 files verified, 0 not well"
    else
        check "an interrupted run is known" err_has "run nightly: stopped: cancelled; 14 files verified, 0 not well"
    fi
    # The next round has nothing to recover.
    rm "$work"/runs.db*
    for n in {10..23}; do echo "file $n" >"$batch/$n"; done
    big_file a >"$batch/25"
done
stop_halfway INT
check "SIGINT ends a batch with 1" exits 1
check "SIGINT is told by a batch" err_has "verify_files: cancelled after 14 of 40 items"
check "it is told how to go on" err_has "to go on, start it again with the same --run"
# The state is of a file that is not there any more.
big_file b >"$batch/25"
sed "s|^.*  $batch/25\$|$(sha256sum "$batch/25")|" "$work/sums" >"$work/other sums"
echo 'file 10 has changed' >"$batch/10"
rm "$batch/49"
sed -i "s|^.*  $batch/10\$|$(sha256sum "$batch/10")|" "$work/other sums"
sha256sum -c "$work/other sums" >"$work/expected" 2>/dev/null || true
run resume_batch "$work/other sums" --store "$work/runs.db" --run nightly
check "a file that is not there fails the batch" exits 1
check "what became of each file is what sha256sum says" out_is "$work/expected"
check "a line that has changed is verified again" err_has "13 recovered, 1 changed since an earlier run"
check "a file that is not there is told" err_has "$batch/49: failed after 1 attempt: cannot read it: No such file"
echo 'file 48 has changed' >"$batch/48"
sed "s|^.*  $batch/48\$|$(sha256sum "$batch/25" | head -c 64)  $batch/48|" "$work/other sums" >"$work/wrong sums"
run resume_batch "$work/wrong sums" --store "$work/runs.db" --run nightly
check "a file that has changed fails the batch" exits 1
check "its sum is told" err_has "$batch/48: failed after 2 attempts: its SHA-256 is $(sha256sum "$batch/48" | head -c 64), "
check "what was not well is told of the earlier run" err_has "  line 40: failed after 1 attempt: cannot read it"
sed -i "s|^.*  $batch/48\$|$(sha256sum "$batch/48")|" "$work/wrong sums"
echo 'file 49' >"$batch/49"
run resume_batch "$work/wrong sums" --store "$work/runs.db" --run nightly
check "what has been put right is verified" exits 0
check "the rest is recovered" err_has " 38 recovered"

run resume_batch "$work/no sums" --store "$work/runs.db" --run nightly
check "a list that is not there is refused" refused "cannot read $work/no sums: No such file"
run resume_batch "$work/rows" --store "$work/runs.db" --run nightly
check "what is no list is refused" refused "line 1 of $work/rows: "
run resume_batch "$work/sums" --store "$work/runs.db" --run nightly --concurrency 0
check "resume_batch refuses a concurrency of 0" refused "concurrency is 0"
run resume_batch "$work/sums" --store "$work/runs.db" --run nightly --lease 0
check "resume_batch refuses a lease of 0" refused "--lease"
run resume_batch "$work/sums" --store "$work/runs.db"
check "a run has an id" refused "--run"
run resume_batch "$work/sums" --store "$work/sums" --run nightly
check "what is no store fails the batch" exits 1
check "what is no store is told" err_has "cannot open the store: the store is damaged"
run resume_batch "$work/sums" --store "$work/not there/runs.db" --run nightly
check "a store that cannot be made is told" err_has "cannot open the store: opening the SQLite store: "
to_nobody resume_batch "$work/sums" --store "$work/runs.db" --run "for nobody"
check "a reader of the batch that went away ends it with 1" exits 1
check "a reader of the batch that went away is told" err_has "verify_files: the sink failed after "
rm -r "$batch" "$work"/runs.db*

# --- picture_hashes -----------------------------------------------------------------------------

pictures=$work/pictures
cp -rp "$raw" "$pictures"
hashes() { run picture_hashes "$pictures" --store "$work/hashes.db" "$@"; }
# cached: how many hashes came from the cache.
cached() { sed -n 's/.* \([0-9]*\) cached.*/\1/p' "${1:-$work/err}" | grep . || echo 0; }
hashes
check "broken pictures have no hash" exits 1
check "the others do" err_has "57 succeeded, 3 failed"
check "nothing is in a new cache" [ "$(cached)" -eq 0 ]
cp "$work/out" "$work/expected"
check "pictures differ in their hashes" eval '[ "$(cut -c-16 "$work/expected" | sort -u | wc -l)" -ge 10 ]'
# Whoever looks at them again finds them broken.
for picture in "$pictures"/picture-*; do
    touch -r "$picture" "$work/time"
    truncate -s 0 "$picture"
    truncate -r "$raw/$(basename "$picture")" "$picture"
    touch -r "$work/time" "$picture"
done
hashes
check "the second time, nothing is computed" [ "$(cached)" -eq 57 ]
check "the hashes are the same" out_is "$work/expected"
check "a failure is not cached" err_has "57 succeeded, 3 failed"
cp "$raw/picture-56.png" "$pictures/picture-00.png"
hashes --concurrency 1
check "a picture that has changed is computed" [ "$(cached)" -eq 56 ]
look() { sed -n "s|^\(.*\)  $pictures/$1\$|\1|p" "$2"; }
check "its hash is a new one" [ "$(look picture-00.png "$work/out")" = "$(look picture-56.png "$work/expected")" ]
rm -r "$pictures"
cp -rp "$raw" "$pictures"
hashes --version 2
check "with another version, all are computed" [ "$(cached)" -eq 0 ]
check "their hashes are those of the pictures" out_is "$work/expected"
hashes
check "the earlier version is still there" [ "$(cached)" -eq 57 ]

rm "$work/hashes.db"*
timeout 60 "$bin/picture_hashes" "$pictures" --store "$work/hashes.db" >"$work/other out" 2>"$work/other err" &
other=$!
hashes
wait "$other" || true
check "two at the same time compute each picture once" [ "$(($(cached) + $(cached "$work/other err")))" -eq 57 ]
check "one of them has every hash" out_is "$work/expected"
check "and so has the other" cmp -s "$work/expected" "$work/other out"
mkdir "$work/one"
cp "$raw/picture-00.png" "$work/one"
run resize_images "$work/one" "$pictures" --width 80 --height 120
hashes
check "a picture that is half as large has the same hash" out_is "$work/expected"
check "it is the only one that is computed" [ "$(cached)" -eq 56 ]

run picture_hashes "$work/not there" --store "$work/hashes.db"
check "a folder that is not there is refused by picture_hashes" refused "cannot list the pictures: No such file"
hashes --concurrency 0
check "picture_hashes refuses a concurrency of 0" refused "concurrency is 0"
run picture_hashes "$pictures"
check "picture_hashes needs a store" refused "--store"
run picture_hashes "$pictures" --store "$pictures/picture-01.jpg"
check "a picture is no store" err_has "cannot open the store: the store is damaged"
to_nobody picture_hashes "$pictures" --store "$work/hashes.db"
check "a reader of the hashes that went away is told" err_has "cannot print the hashes: Broken pipe"
check "picture_hashes then exits with 1" exits 1

echo "examples: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
