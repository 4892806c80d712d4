#!/usr/bin/env bash
# Every test, or those that the arguments select (they go to pytest).
#
# Most run three files at a time, as many of them wait for processes. Those that keep a pace, or drive a whole lab, come
# after them, alone. Exit code of pytest; 5, nothing selected, counts only if it is so of both parts.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

readonly NOTHING=5
part() { .venv/bin/python -m pytest "$@"; }

part -m "not alone" --numprocesses 3 --dist loadfile "$@"
first=$?
part -m alone "$@"
second=$?

[ $second -ne $NOTHING ] || exit $first
if [ $first -ne 0 ] && [ $first -ne $NOTHING ]; then
    echo "tests: the first part failed, see above" >&2
    exit $first
fi
exit $second
