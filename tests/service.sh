#!/usr/bin/env bash
# The example axum_service: its endpoints and itself under load (tests/service/main.rs, which starts services
# of its own), then its page in a real browser (tests/service/browser.mjs). Installs a browser, and what
# drives it, where they are missing. The screenshots are left in the target folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/package.sh

target=${CARGO_TARGET_DIR:-target}
modules=$target/browser
pictures=$target/pictures
playwright=1.65.1

work=$(mktemp -d)
started=
stop() {
    if [ -n "$started" ]; then
        kill -KILL "$started" 2>/dev/null || true
        wait "$started" 2>/dev/null || true
        started=
    fi
}
trap 'stop; rm -rf "$work"' EXIT

package chromium chromium fonts-liberation
package node nodejs
package npm npm
installed=$(node -p "require('$(realpath -m "$modules")/node_modules/playwright-core/package.json').version" 2>/dev/null || true)
if [ "$installed" != "$playwright" ]; then
    npm install --prefix "$modules" --no-save --no-audit --no-fund --silent "playwright-core@$playwright"
fi

cargo build --release --quiet -p axum_service
timeout 300 cargo test --release --quiet -p axum_service --test service -- --nocapture

mkdir -p "$pictures"
"$target/release/axum_service" --listen 127.0.0.1:0 --allow-internal --log error >"$work/out" &
started=$!
for _ in $(seq 100); do
    service=$(sed -n 's/^listening on //p' "$work/out")
    if [ -n "$service" ]; then break; fi
    sleep 0.1
done
timeout 180 node tests/service/browser.mjs "$service" "$(command -v chromium)" "$modules" "$pictures"

# The page was open until a moment ago: a signal must end the service all the same.
kill -TERM "$started"
status=0
wait "$started" || status=$?
started=
if [ "$status" -ne 0 ] || ! grep -qx ended "$work/out"; then
    echo "service: it did not end as it should, but with $status" >&2
    exit 1
fi
echo "service: all passed"
