#!/usr/bin/env bash
# Makes .venv/tools/NAME for each tools/NAME.lock: programs whose packages must not meet the project's or each other.
# .venv must be there (tools/setup.sh). An environment that its lock and this place match costs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never
readonly UV=.venv/bin/uv

say() { printf 'tools: %s\n' "$*"; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ -w "${HOME:-/nonexistent}" ] || export UV_CACHE_DIR=$scratch/cache # a user without a home of its own

# What an environment was made of: this place and its lock. Its last line is written when all else is done.
mark() { pwd -P && cksum <"$1"; }
made() { [ -x "$1/bin/python" ] && [ "$(cat "$1/.ready" 2>/dev/null)" = "$(mark "$2")" ]; }

make_environment() {
    "$UV" venv --quiet --python .venv/bin/python "$1" &&
        VIRTUAL_ENV=$PWD/$1 "$UV" pip sync --quiet --require-hashes "$2"
}

for lock in tools/*.lock; do
    name=$(basename "$lock" .lock)
    environment=.venv/tools/$name
    made "$environment" "$lock" && continue
    say "installing $(grep -c '^[A-Za-z]' "$lock") pinned packages for $name"
    rm -rf "$environment"
    make_environment "$environment" "$lock" >"$scratch/log" 2>&1 </dev/null || {
        tail -n 20 "$scratch/log" >&2
        say "could not make $environment" >&2
        exit 1
    }
    mark "$lock" >"$environment/.ready"
done
