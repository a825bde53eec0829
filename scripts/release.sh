#!/usr/bin/env bash
# Releases the version that Cargo.toml states: checks it, publishes both packages, and tags the commit.
# `bash scripts/release.sh --dry-run` does all of it but publishing and tagging.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "release: $*" >&2; exit 1; }
step() { printf '\n== %s\n' "$*"; }

case "${1:-}" in
    --dry-run) dry_run=1 ;;
    "") dry_run= ;;
    *) fail "unknown argument $1; allowed is --dry-run" ;;
esac

version=$(cargo pkgid -p async-map-task | sed 's/.*[#@]//')
tag=v$version

step "version $version"
[ -z "$(git status --porcelain)" ] || fail "the working tree has changes"
[ "$(git branch --show-current)" = main ] || fail "the branch is not main"
if git rev-parse --quiet --verify "refs/tags/$tag" >/dev/null; then fail "$tag exists"; fi
macros=$(cargo pkgid -p async-map-task-macros | sed 's/.*[#@]//')
[ "$macros" = "$version" ] || fail "async-map-task-macros has version $macros"
# A wrong address could be taken by somebody else, so there is none before the repository is public.
for file in Cargo.toml macros/Cargo.toml; do
    if ! grep -q '^repository = "https://' "$file"; then
        [ -n "$dry_run" ] || fail "$file has no repository; set it, and homepage"
        echo "$file has no repository yet; a release needs it"
    fi
done
if [ -z "$dry_run" ]; then
    grep -q "^## $version - [0-9]\{4\}-[0-9][0-9]-[0-9][0-9]$" CHANGELOG.md ||
        fail "CHANGELOG.md has no heading '## $version - <date>'"
else
    grep -q "^## .*$version" CHANGELOG.md || fail "CHANGELOG.md has no heading for $version"
fi

step "changes of the public API"
last=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$last" ]; then
    cargo semver-checks --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-semver-checks
    cargo semver-checks --package async-map-task --all-features --baseline-rev "$last"
else
    echo "no earlier version to compare with"
fi

step "gates"
if [ -n "$dry_run" ] && [ -n "${RELEASE_SKIP_GATES:-}" ]; then
    echo "skipped: RELEASE_SKIP_GATES is set"
else
    bash .ci/run
fi

step "publish"
if [ -n "$dry_run" ]; then
    cargo package --quiet -p async-map-task-macros -p async-map-task --all-features
    echo "dry run: would publish async-map-task-macros and async-map-task, and tag $tag"
    exit 0
fi
cargo publish -p async-map-task-macros
cargo publish -p async-map-task --all-features
git tag --annotate "$tag" --message "$version"
git push origin "$tag"
