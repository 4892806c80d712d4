#!/usr/bin/env bash
# Sees that the programs of tools/programs.txt are on this machine: real servers, clients and packet tools. `system.sh lab`
# sees to those of the lab alone. Root on a machine with apt-get gets the missing ones installed; anybody else is told
# the command that does it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly POLICY=/usr/sbin/policy-rc.d WHOSE=${1:-}

say() { printf 'system: %s\n' "$*"; }
fail() {
    printf 'system: %s\n' "$*" >&2
    exit 1
}

missing_packages() {
    local program package whose
    while read -r program package whose; do
        [[ $program != "#" && (-z $WHOSE || $whose == "$WHOSE") ]] || continue
        command -v "$program" >/dev/null || printf '%s\n' "$package"
    done <tools/programs.txt | sort -u
}

# A fresh nginx must not take port 80: Debian's packages start their services unless policy-rc.d says 101.
forbid_service_starts() {
    if [ -e "$POLICY" ] && [ ! -e "$POLICY.before-setup" ]; then mv "$POLICY" "$POLICY.before-setup"; fi
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

restore_service_starts() {
    rm -f "$POLICY"
    if [ -e "$POLICY.before-setup" ]; then mv "$POLICY.before-setup" "$POLICY"; fi
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes -o DPkg::Lock::Timeout=120 "$@" </dev/null; }

mapfile -t missing < <(missing_packages)
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || fail "please install what Debian calls: ${missing[*]}"
[ "$(id -u)" -eq 0 ] || fail "some programs are missing; please run: sudo apt-get install --no-install-recommends ${missing[*]}"

log=$(mktemp)
trap 'restore_service_starts; rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP
forbid_service_starts

say "asking apt-get for the current package lists"
apt update >"$log" 2>&1 || say "could not refresh the package lists; going on with the old ones"
say "installing ${missing[*]}"
apt install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "apt-get could not install: ${missing[*]}"
}
if [[ " ${missing[*]} " == *" nginx-light "* ]] && command -v systemctl >/dev/null; then
    systemctl disable --quiet nginx >>"$log" 2>&1 || say "please check that nginx does not start at boot: systemctl disable nginx"
fi
mapfile -t missing < <(missing_packages)
[ ${#missing[@]} -eq 0 ] || fail "apt-get is content, but these are still missing: ${missing[*]}"
say "done"
