#!/usr/bin/env bash
# Prints the path of the first Python 3.13 that can make a virtual environment; exit 1 and no word if there is none.
#
# Looked at in this order: $PYTHON (and then nothing else), PATH, pyenv's versions, the machine's usual places, uv's own.
# A name says little (a pyenv shim may only print an error, a Debian python3 may lack venv), so each candidate is run.
# The usual places may be given as arguments instead.
set -uo pipefail
shopt -s nullglob

places=(/usr/local/bin /usr/bin /opt/*/bin /opt/*/*/bin)
[ $# -gt 0 ] && places=("$@")

readonly PROBE='import sys, ensurepip, venv; sys.version_info[:2] == (3, 13) or sys.exit(1); print(sys.executable)'

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON"
        return
    fi
    type -ap python3.13 python3 python
    local shim
    for shim in $(type -ap python3.13); do  # pyenv's, which may run nothing: what it stands for lies beside it
        newest_first "${shim%/shims/*}"/versions/3.13*/bin/python3.13
    done
    newest_first "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/3.13*/bin/python3.13
    newest_first "${places[@]/%//python3.13}"
    newest_first "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-${HOME:-/nonexistent}/.local/share}/uv/python}"/cpython-3.13*/bin/python3.13
}

newest_first() {
    [ $# -eq 0 ] || printf '%s\n' "$@" | sort --version-sort --reverse
}

candidates | while read -r candidate; do
    if [ -x "$candidate" ] && found=$("$candidate" -c "$PROBE" 2>/dev/null </dev/null) && [ -x "$found" ]; then
        printf '%s\n' "$found"
        exit 3
    fi
done
[ $? -eq 3 ]
