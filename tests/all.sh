#!/usr/bin/env bash
# Every test of every feature. Installs what is missing of the servers that they start: PostgreSQL and PgBouncer for the
# durable runs, Restate, a balancer and certificates for those on more than one machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/package.sh

package initdb postgresql
package pgbouncer pgbouncer
package haproxy haproxy
package openssl openssl
package curl curl

restate=${CARGO_TARGET_DIR:-target}/restate
if ! compgen -G "$restate/node_modules/@restatedev/restate-server-*/bin/restate-server" >/dev/null; then
    package node nodejs
    package npm npm
    echo "installing the Restate server"
    mkdir -p "$restate"
    npm install --ignore-scripts --no-save --no-audit --no-fund --silent --prefix "$restate" \
        @restatedev/restate-server@1.7.12
fi

cargo test --workspace --all-features
# What an item is known by does not depend on features of `serde_json` that another crate may switch on.
cargo test --features sqlite,serde_json/arbitrary_precision,serde_json/preserve_order --lib store::
