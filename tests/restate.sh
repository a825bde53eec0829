#!/usr/bin/env bash
# The examples restate_worker and restate_map over a real Restate server, and what the guide's page past_one_machine has
# that is no Rust: its two haproxy.cfg, its certificate, and what an operator asks. `tests/all.sh` installs the servers. Needs the
# GNU tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C
PATH=$PATH:/usr/sbin

cargo build --features restate --example restate_worker --example restate_map --quiet
target=${CARGO_TARGET_DIR:-target}
bin=$(cd "$target/debug/examples" && pwd)
server=$(compgen -G "$target/restate/node_modules/@restatedev/restate-server-*/bin/restate-server" | head -1)
page=src/guide/past_one_machine.md
work=$(mktemp -d)
touch "$work/out" "$work/err"
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

passed=0
failed=0
status=0

# check WHAT COMMAND...: the command must succeed.
check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what (the example exited with $status)" >&2
        tail -n 10 "$work/err" "$work"/*.log | sed 's/^/  /' >&2
    fi
}

exits() { [ "$status" -eq "$1" ]; }
err_has() { grep -qF -- "$1" "$work/err"; }
out_is() { cmp -s "$1" "$work/out"; }

# eventually COMMAND...: waits until the command succeeds, up to a minute.
eventually() {
    local tries
    for ((tries = 0; tries < 1200; tries++)); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}

declare -A taken
# free_port NAME: gives the variable a port of the loopback that nobody listens on.
free_port() {
    local -n port=$1
    while port=$((10000 + RANDOM % 20000)); do
        if [ -z "${taken[$port]:-}" ] && ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    done
    taken[$port]=yes
}

# --- the server -----------------------------------------------------------------------------------

free_port ingress
free_port admin
free_port node
TMPDIR=$work RESTATE_INGRESS__BIND_ADDRESS=127.0.0.1:$ingress RESTATE_ADMIN__BIND_ADDRESS=127.0.0.1:$admin \
    RESTATE_DEFAULT_NUM_PARTITIONS=4 RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE=128MB RESTATE_DISABLE_TELEMETRY=true \
    RESTATE_LOG_FILTER=error,octocrab=off "$server" --bind-ip 127.0.0.1 --bind-port "$node" --listen-mode tcp \
    --no-logo --node-name n1 --base-dir "$work/data" >"$work/server.log" 2>&1 &

# code HEADING KIND: the code of this kind that the page has under a heading.
code() {
    awk -v heading="$1" -v kind="\`\`\`$2" '/^```/ { in_code = !in_code; is_wanted = in_code && is_here && $0 == kind; next }
        !in_code && /^#/ { is_here = $0 == heading } is_wanted' "$page"
}

# The page's own words for the operator, at this server: `ask SQL`, and `IDS | each WHAT`.
operator=$(code "# Queries for an operator" sh | sed "s/localhost:9070/127.0.0.1:$admin/")
eval "$(grep -E '^(ask|each)\(\)' <<<"$operator")"

is_ready() {
    curl -sf "127.0.0.1:$ingress/restate/health" >/dev/null && curl -sf "127.0.0.1:$admin/health" >/dev/null &&
        ask "SELECT count(*) AS n FROM sys_invocation" | grep -q rows
}
check "the server starts" eventually is_ready

# count CONDITION: how many invocations are so.
count() { ask "SELECT count(*) AS n FROM sys_invocation WHERE $1" | sed 's/.*"n":\([0-9]*\).*/\1/'; }
counts() { [ "$(count "$2")" -eq "$1" ]; }

# start_worker NAME ADDRESS: leaves its pid in worker_NAME, and its port in port_NAME.
start_worker() {
    local -n pid=worker_$1 port=port_$1
    "$bin/restate_worker" "$work/files" --listen "$2" >"$work/$1.log" 2>&1 &
    pid=$!
    eventually grep -q '^hashing files of ' "$work/$1.log"
    port=$(sed -n 's/^hashing files of .*://p' "$work/$1.log")
}
register() {
    curl -sf "127.0.0.1:$admin/deployments" -H 'content-type: application/json' -d "{\"uri\": \"http://127.0.0.1:$1\"}" |
        grep -q Checksums
}

ingress_url=http://127.0.0.1:$ingress
admin_url=http://127.0.0.1:$admin
map() { "$bin/restate_map" "$@" --ingress "$ingress_url" --admin "$admin_url"; }
run() {
    status=0
    map "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
}
# start_map ARGUMENTS...: in the background; its pid is in mapping.
start_map() {
    "$bin/restate_map" "$@" --ingress "$ingress_url" --admin "$admin_url" >"$work/out" 2>"$work/err" </dev/null &
    mapping=$!
}
ends() {
    status=0
    wait "$mapping" 2>/dev/null || status=$?
}

# --- a run ----------------------------------------------------------------------------------------

files=$work/files
mkdir -p "$files/a dir" "$files/a-dir"
for n in {10..49}; do echo "file $n" >"$files/$n"; done
echo deep >"$files/a dir/ two  spaces "
echo deep >"$files/a-dir/file"
echo newline >"$files/new"$'\n'"line"
echo backslash >"$files/back\\slash"
head -c 3000000 /dev/zero >"$files/larger than a buffer"
: >"$files/empty"
# sums: what restate_map should print.
sums() { (cd "$files" && find . -type f -printf '%P\0' | tr '/' '\001' | sort -z | tr '\001' '/' | xargs -0 sha256sum); }

start_worker one 127.0.0.1:0
check "the worker is registered" register "$port_one"

sums >"$work/expected"
run "$files" --run-id first
check "a tree is hashed" exits 0
check "the sums are those of sha256sum, sorted by path" out_is "$work/expected"
check "the summary is on stderr" err_has "46 items in "
cp -r "$files" "$work/away"
for n in {10..49}; do echo changed >"$files/$n"; done
run "$files" --run-id first
check "a run that has ended can be started again" exits 0
check "nothing of it is read again" out_is "$work/expected"
check "nothing of it is called again" counts 46 "idempotency_key LIKE 'first.%'"
sums >"$work/expected"
run "$files"
check "a run without an id is a new one" out_is "$work/expected"

# --- what a worker refuses ------------------------------------------------------------------------

ln -s /etc/passwd "$files/link out"
mkfifo "$files/pipe"
refuses() {
    local answer
    answer=$(curl -s "127.0.0.1:$ingress/restate/call/Checksums/sha256" -H 'content-type: application/json' -d "\"$1\"")
    [[ $answer == *"\"code\":$2"* ]]
}
for path in /etc/passwd ../files/../../../../../../etc/passwd "link out" pipe "a dir"; do
    check "a worker refuses $path" refuses "$path" 400
done
check "a worker tells of what is not there" refuses "not there" 404
check "and has a line for each failure, and only for those" eval '[ "$(wc -l <"$work/one.log")" -eq 7 ]'
rm "$files/link out" "$files/pipe"

# --- failures -------------------------------------------------------------------------------------

# The coordinator sees a file that the workers do not.
cp -r "$files" "$work/tree"
echo 'only here' >"$work/tree/only here"
run "$work/tree" --run-id failing
check "a file that fails is too many" exits 1
check "it is named, and was not tried again" err_has "only here: failed after 1 attempt: the handler failed with code 404: No such file"
check "the verdict is told" err_has "restate_map: 1 of 47 items failed, 0 allowed; item 46 failed first"
run "$work/tree" --run-id failing --max-failures 1
check "the same run with another verdict" exits 0
check "it has the sums of the others" out_is "$work/expected"
cp "$work/tree/only here" "$files"
run "$work/tree" --run-id failing
check "a failure is kept" err_has "only here: failed after 1 attempt"
eval "$(grep 'each purge$' <<<"$operator" | sed 's/words-2026-11-22/failing/g')" >/dev/null
sums >"$work/expected"
run "$work/tree" --run-id failing
check "until it is purged" exits 0
check "and then it runs again" out_is "$work/expected"
echo first >"$work/tree/0"
run "$work/tree" --run-id failing
check "another tree is no run of this id" exits 1
check "that is told" err_has "at its place: the tree has changed since it began; choose another --run-id"
rm "$work/tree/0"
touch "$work/tree/caf"$'\xe9'
run "$work/tree" --run-id "not-utf-8" --max-failures 1
check "a name that is no JSON is a failure" err_has "failed after 1 attempt: the item cannot be made JSON: "
check "and the others are hashed" out_is "$work/expected"
run "$files" --concurrency 0
check "a concurrency of 0 is refused" exits 2
run "$files" --run-id "a b"
check "a run id with a blank is refused" err_has 'run_id is `a b`'
run "$work/not there"
check "a tree that is not there is told" err_has "cannot list the files: "
status=0
"$bin/restate_worker" "$work/not there" >"$work/out" 2>"$work/err" || status=$?
check "a worker needs its folder" err_has "cannot find $work/not there: No such file"

# --- stopped and killed ---------------------------------------------------------------------------

# A file that nobody comes to the end of.
lengthen() { truncate -s 100T "$files/endless" 2>/dev/null || truncate -s 10T "$files/endless"; }
# has PID: whether that worker reads it.
reads() { find "/proc/$1/fd" -lname "$files/endless" 2>/dev/null | grep -q .; }
does_not_read() { ! reads "$1"; }

# begin RUN_ID: a run that comes to its end but for the one file, and then finds all others changed.
begin() {
    : >"$files/endless"
    for n in {10..49}; do echo "file $n of $1" >"$files/$n"; done
    sums >"$work/expected"
    lengthen
    start_map "$files" --run-id "$1"
    check "all but one file are hashed" eventually counts 47 "idempotency_key LIKE '$1.%' AND status = 'completed'"
    for n in {10..49}; do echo changed >"$files/$n"; done
}

begin interrupted
check "the worker reads" eventually reads "$worker_one"
kill -INT "$mapping"
ends
check "an interrupted run exits with 1" exits 1
check "an interrupted run prints what was finished" eval '[ "$(wc -l <"$work/out")" -eq 47 ]'
check "it is told how to go on" err_has "to go on, start it again with the same --run-id"
check "nothing is left of it in the engine" counts 0 "idempotency_key LIKE 'interrupted.%' AND status <> 'completed'"
check "the worker reads no further" eventually does_not_read "$worker_one"
truncate -s 0 "$files/endless"
run "$files" --run-id interrupted
check "the same id goes on" exits 0
check "only the rest is read" out_is "$work/expected"

begin killed
check "the worker reads again" eventually reads "$worker_one"
kill -KILL "$mapping"
ends
check "the engine goes on without its coordinator" counts 1 "idempotency_key LIKE 'killed.%' AND status = 'running'"
kill -KILL "$worker_one"
wait "$worker_one" 2>/dev/null || true
truncate -s 0 "$files/endless"
start_worker one "127.0.0.1:$port_one"
run "$files" --run-id killed
check "after both were killed, the run goes on" exits 0
check "only the rest is read again" out_is "$work/expected"

# --- TLS and a token ------------------------------------------------------------------------------

free_port tls_ingress
free_port tls_admin
mkdir "$work/tls"
code "## TLS and a token" text |
    sed "s/:8443/:$tls_ingress/; s/:9443/:$tls_admin/; s/:8080/:$ingress/; s/:9070/:$admin/" >"$work/tls/haproxy.cfg"
code "## TLS and a token" sh | sed '/^haproxy/,$d' >"$work/tls/make.sh"
(cd "$work/tls" && bash -e make.sh && exec haproxy -db -f haproxy.cfg) >"$work/tls.log" 2>&1 &
is_secured() {
    curl -sf --cacert "$work/tls/certificate.pem" -H "authorization: Bearer SECRET" \
        "https://localhost:$1/$2" >/dev/null
}
check "the page's proxy stands before the ingress" eventually is_secured "$tls_ingress" restate/health
check "and before the admin API" eventually is_secured "$tls_admin" health
ingress_url=https://localhost:$tls_ingress
admin_url=https://localhost:$tls_admin
sums >"$work/expected"
run "$files" --run-id untrusted
check "a certificate that is not trusted is told" err_has "the certificate of the ingress is not trusted: "
export SSL_CERT_FILE=$work/tls/certificate.pem
run "$files" --run-id unauthorized
check "so is a token that is missing" err_has "the ingress refused the bearer token with status 401: "
check "nothing was called" counts 0 "idempotency_key LIKE 'un%'"
export RESTATE_AUTH_TOKEN=SECRET
run "$files" --run-id secured
check "with both, the tree is hashed" exits 0
check "and its sums are the same" out_is "$work/expected"
begin secured-stop
check "the worker reads for it" eventually reads "$worker_one"
kill -INT "$mapping"
ends
check "nothing is left of it, so the admin API was reached" counts 0 "idempotency_key LIKE 'secured-stop.%' AND status <> 'completed'"
truncate -s 0 "$files/endless"
unset SSL_CERT_FILE RESTATE_AUTH_TOKEN
ingress_url=http://127.0.0.1:$ingress
admin_url=http://127.0.0.1:$admin

# --- several workers ------------------------------------------------------------------------------

start_worker two 127.0.0.1:0
free_port balancer
code "# Several workers" text |
    sed "s/:9079/:$balancer/; s/:9080/:$port_one/; s/:9081/:$port_two/" >"$work/haproxy.cfg"
haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
is_balanced() { curl -sf "127.0.0.1:$balancer/health" >/dev/null; }
check "the page's balancer starts" eventually is_balanced
check "the balancer is registered" register "$balancer"
for n in {100..199}; do echo missing >"$work/tree/$n"; done
run "$work/tree" --run-id balanced --max-failures 200
check "the workers have the calls between them" eval 'grep -q "^1..: No such file" "$work/one.log" && grep -q "^1..: No such file" "$work/two.log"'

# reader: which worker reads, and which other does not.
reader() {
    if reads "$worker_one"; then
        busy=$worker_one idle=$worker_two
    else
        reads "$worker_two" && busy=$worker_two idle=$worker_one
    fi
}
# The balancer's log names each worker that it gives up or takes back.
is_up_again() { tail -n 1 "$work/haproxy.log" | grep -q ' is UP'; }
begin moved
check "one of the workers reads" eventually reader
kill -STOP "$busy"
check "what a frozen worker had is done by the other one" eventually reads "$idle"
kill -CONT "$busy"
check "the worker that is back reads no further" eventually does_not_read "$busy"
check "the balancer is content with both again" eventually is_up_again
kill -TERM "$busy"
check "what a worker had that is told to go is done by the other one" eventually reads "$idle"
status=0
wait "$busy" || status=$?
check "it goes in peace" exits 0
check "the coordinator waits" kill -0 "$mapping"
kill -INT "$mapping"
ends
check "nothing is left of this in the engine, either" counts 0 "idempotency_key LIKE 'moved.%' AND status <> 'completed'"
truncate -s 0 "$files/endless"
run "$files" --run-id moved
check "one worker does the rest" out_is "$work/expected"

# --- what an operator asks ------------------------------------------------------------------------

questions=0
while read -r question; do
    questions=$((questions + 1))
    check "the engine knows what to answer to: $question" eval "$question | grep -q '\"rows\":'"
done < <(grep '^ask "' <<<"$operator" | sed 's/ | each .*//')
check "the page has its questions" [ "$questions" -ge 8 ]

echo "restate: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
