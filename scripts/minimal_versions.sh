#!/usr/bin/env bash
# Builds the crate with the oldest version of each dependency that Cargo.toml allows, and with the oldest compiler. It needs
# the toolchains `nightly`, which can select such versions, and `1.85`.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$work"
cd "$work"
# What only the tests and the other packages use does not concern a user.
sed -i '/^\[dev-dependencies\]/,/^$/d' Cargo.toml macros/Cargo.toml
sed -i '/^members = \[/,/^\]/c members = ["macros"]' Cargo.toml
sed -i '/^default-members/d' Cargo.toml
cargo +nightly update -Z direct-minimal-versions
# `sqlx`, behind the features `sqlite` and `postgres`, needs a later compiler.
RUSTFLAGS="--cap-lints=warn" cargo +1.85 check -p async-map-task --features http,indicatif,macros,metrics,report,restate,serde,signal,store-conformance
