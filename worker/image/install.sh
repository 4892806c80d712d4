#!/usr/bin/env bash
# Installs the worker from an unpacked bundle and starts it. Run again with another bundle, it is the upgrade.
#
# It calls no package manager and no AWS API: the interpreter and the bundle are handed to it. It ends well only when
# /healthz does, so whoever signals success to CloudFormation can hang that on it. If a new bundle does not become
# healthy where one ran before, that one is put back.
#
# exit codes: 0 done, 1 it does not run, 2 what was handed over cannot be used (nothing has changed then)
set -euo pipefail

usage() {
    cat <<'END'
install.sh --python FILE --bundle FOLDER --config ssm:NAME|FILE --service NAME --region REGION
           --logs GROUP --metrics-logs GROUP [--root FOLDER] [--no-start]

  --python FILE         Python 3.13 of this machine's architecture
  --bundle FOLDER       what the layer's zip holds under python/
  --config PLACE        where the worker finds its settings: ssm:NAME, or a file's absolute path
  --service NAME        the metrics' dimension: the stack's name
  --region REGION       of the parameter, the log groups and the metrics
  --logs GROUP          log group of the worker's log
  --metrics-logs GROUP  log group of its metrics
  --root FOLDER         write below this folder, and start nothing (default /)
  --no-start            start nothing
END
}

readonly HEALTHZ=http://127.0.0.1:8080/healthz DEADLINE=60
readonly HOME_DIR=/opt/vpc-traffic-replay SETTINGS_DIR=/etc/vpc-traffic-replay LOG_DIR=/var/log/vpc-traffic-replay
readonly LOG=$LOG_DIR/replayer.log
readonly AGENT=/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl

say() { printf 'install: %s\n' "$*"; }
refuse() {
    printf 'install: %s\n' "$*" >&2
    exit 2
}
fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

python='' bundle='' config='' service='' region='' logs='' metrics_logs='' root=/ start=yes

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help)
            usage
            exit 0
            ;;
        --no-start)
            start=no
            shift
            continue
            ;;
        --python | --bundle | --config | --service | --region | --logs | --metrics-logs | --root) ;;
        *) refuse "there is no option $1 (see --help)" ;;
        esac
        [ $# -ge 2 ] || refuse "$1 needs a value"
        local name=${1#--}
        printf -v "${name//-/_}" '%s' "$2"
        shift 2
    done
    [ "$root" = / ] || start=no
    root=${root%/}
}

# matches NAME VALUE PATTERN: the values go into files, so each is held to what AWS lets it be.
matches() {
    [ -n "$2" ] || refuse "$1 is missing (see --help)"
    [[ $2 =~ ^($3)$ ]] || refuse "$1 '$2' is not of the form $3"
}

check_options() {
    [ "$(id -u)" -eq 0 ] || refuse "run it as root"
    [ -z "$root" ] || [ -d "$root" ] || refuse "--root $root is no folder"
    matches --config "$config" 'ssm:[-._/A-Za-z0-9]+|/[-._/A-Za-z0-9]+'
    matches --service "$service" '[A-Za-z][-A-Za-z0-9]{0,127}'
    matches --region "$region" '[a-z]{2}(-[a-z]+)+-[0-9]+'
    matches --logs "$logs" '[-._/#A-Za-z0-9]{1,512}'
    matches --metrics-logs "$metrics_logs" '[-._/#A-Za-z0-9]{1,512}'
    matches --python "$python" '/[-+._/A-Za-z0-9]+'
    [ -n "$bundle" ] || refuse "--bundle is missing (see --help)"
    local name
    for name in replayer image/replayer.service image/install.sh; do
        [ -e "$bundle/$name" ] || refuse "--bundle $bundle holds no $name"
    done
}

check_python() {
    local found machine
    [ -x "$python" ] || refuse "--python $python is no program"
    found=$("$python" -I -c 'import platform, sys; print(*sys.version_info[:2], platform.machine())' 2>&1) ||
        refuse "--python $python does not run: ${found##*$'\n'}"
    machine=$(uname -m)
    [ "$found" = "3 13 $machine" ] || refuse "--python $python is '$found', not '3 13 $machine'"
}

# The release's name is what is in it: the same bundle is the same release.
fingerprint() {
    (cd "$1" && find . -name __pycache__ -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) |
        sha256sum | cut -c 1-16
}

# Puts the bundle where it is to run from. Nothing points to it yet.
stage() {
    release=releases/$(fingerprint "$bundle")
    local folder=$root$HOME_DIR/$release
    [ ! -d "$folder" ] || return 0
    mkdir -p "$root$HOME_DIR/releases"
    rm -rf "$folder.partial"
    cp -R "$bundle" "$folder.partial"
    find "$folder.partial" -name __pycache__ -prune -exec rm -rf {} +
    chown -R 0:0 "$folder.partial"
    chmod -R u=rwX,go=rX "$folder.partial"
    mv -T "$folder.partial" "$folder"
}

# replayer ARGUMENT...: the staged program, with no more rights than the service has.
replayer() {
    local words=(env "PYTHONPATH=$root$HOME_DIR/$release" PYTHONDONTWRITEBYTECODE=1 "AWS_REGION=$region"
        "$python" -P -m replayer "$@")
    if [ -z "$root" ]; then
        runuser -u replayer -- "${words[@]}"
    else
        "${words[@]}"
    fi
}

# drop WORDS: the staged release is of no use.
drop() {
    [ "$release" = "$previous" ] || rm -rf "$root${HOME_DIR:?}/$release"
    refuse "$@"
}

# As root, so that what is imported is also compiled, in the release: the service cannot, and would at every start.
check_bundle() {
    local said
    said=$(PYTHONPATH=$root$HOME_DIR/$release "$python" -P -c \
        'import boto3, replayer.check, replayer.shard, replayer.supervisor' 2>&1) ||
        drop "the bundle does not import (built for $(uname -m) and Python 3.13?): ${said##*$'\n'}"
    said=$(replayer --version 2>&1) || drop "the bundle does not run: ${said##*$'\n'}"
    say "$said, as $release"
}

# Settings that cannot be used end it; a destination that is away does not, or nothing could be started while the test
# environment is down. `check` answers nothing before the settings are good. Its answers about ports are not asked for
# here: on an upgrade the worker of before has them, and the start tells anyway.
check_settings() {
    local answers said
    answers=$(mktemp)
    if ! replayer check --config "$config" >"$answers" 2>"$answers.fault"; then
        if [ ! -s "$answers" ]; then
            said=$(tail -n 1 "$answers.fault")
            rm -f "$answers" "$answers.fault"
            drop "the settings cannot be used: $said"
        fi
    fi
    grep -v '^ok  ' "$answers" | grep '://' | sed 's/^/install: going on all the same: /' >&2 || true
    rm -f "$answers" "$answers.fault"
}

make_user() {
    grep -q "^$1:" "$root/etc/passwd" && return
    useradd ${root:+--prefix "$root"} --system --user-group --no-create-home --home-dir / --shell /sbin/nologin "$1"
}

# put MODE FROM TO: a file with its placeholders filled in, replaced as a whole.
put() {
    local to=$root$3
    mkdir -p "${to%/*}"
    sed -e "s|@SERVICE@|$service|g" -e "s|@REGION@|$region|g" -e "s|@LOGS@|$logs|g" \
        -e "s|@METRICS_LOGS@|$metrics_logs|g" -e "s|@WORKER@|$(uname -n)|g" "$2" >"$to.new"
    chmod "$1" "$to.new"
    mv -f "$to.new" "$to"
}

# put_files RELEASE: everything beside the program itself, as that release has it.
put_files() {
    local image=$root$HOME_DIR/$1/image
    put 644 "$image/replayer.service" /etc/systemd/system/replayer.service
    put 644 "$image/sysctl.conf" /etc/sysctl.d/90-vpc-traffic-replay.conf
    put 644 "$image/logrotate.conf" /etc/logrotate.d/vpc-traffic-replay
    put 644 "$image/prometheus.yaml" $SETTINGS_DIR/prometheus.yaml
    put 644 "$image/cloudwatch-agent.json" $SETTINGS_DIR/cloudwatch-agent.json
    printf 'REPLAYER_CONFIG=%s\nAWS_REGION=%s\n' "$config" "$region" >"$root$SETTINGS_DIR/replayer.env"
}

# Root owns folder and file: systemd opens the log as root, and must not be led elsewhere by the worker's user.
make_log() {
    local group
    group=$(awk -F : '$1 == "cwagent" { print $3 }' "$root/etc/group")
    mkdir -p "$root$LOG_DIR"
    touch "$root$LOG"
    chown "0:$group" "$root$LOG_DIR" "$root$LOG"
    chmod 750 "$root$LOG_DIR"
    chmod 640 "$root$LOG"
}

# point TARGET NAME: a link that leads to the old or to the new target at every instant.
point() {
    ln -sfn "$1" "$root$HOME_DIR/$2.new"
    mv -fT "$root$HOME_DIR/$2.new" "$root$HOME_DIR/$2"
}

use() {
    put_files "$1"
    point "$1" current
}

# Only what runs and what ran before it stays.
prune() {
    local folder
    for folder in "$root$HOME_DIR"/releases/*; do
        case $folder in
        "$root$HOME_DIR/$release" | "$root$HOME_DIR/$previous") ;;
        *) rm -rf "$folder" ;;
        esac
    done
}

healthy() {
    "$python" -I -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' $HEALTHZ 2>/dev/null
}

# Starts what `current` points to, and waits until it is healthy.
run() {
    systemctl daemon-reload
    systemctl enable --quiet replayer.service
    systemctl restart replayer.service || return
    local end=$((SECONDS + DEADLINE))
    until healthy; do
        if [ $SECONDS -ge $end ] || systemctl is-failed --quiet replayer.service; then return 1; fi
        sleep 0.5
    done
}

# Without the agent there are neither metrics nor logs in CloudWatch, but requests are replayed.
start_agent() {
    local said
    if [ ! -x $AGENT ]; then
        say "there is no $AGENT: CloudWatch gets no metrics and no log of this worker" >&2
    elif ! said=$($AGENT -a fetch-config -m ec2 -s -c file:$SETTINGS_DIR/cloudwatch-agent.json 2>&1); then
        say "the CloudWatch agent does not start: ${said##*$'\n'}" >&2
    fi
}

begin() {
    sysctl --quiet --load /etc/sysctl.d/90-vpc-traffic-replay.conf ||
        say "the kernel refuses larger buffers: bursts may be lost" >&2
    start_agent # first: the log of a worker that does not come up is wanted most
    if ! run; then
        say "$release did not become healthy; the end of $LOG:" >&2
        tail -n 20 $LOG >&2
        if [ -n "$previous" ] && [ "$previous" != "$release" ]; then
            use "$previous"
            run || fail "$previous, which was put back, is not healthy either"
            fail "$previous was put back, and runs"
        fi
        fail "it does not run"
    fi
}

read_options "$@"
check_options
check_python
release='' previous=$(readlink "$root$HOME_DIR/current" || true)
make_user replayer
make_user cwagent
stage
check_bundle
check_settings
make_log
point "$python" python
use "$release"
if [ $start = yes ]; then
    begin
fi
prune
say "done: $release $([ $start = yes ] && echo "is healthy" || echo "is in place")"
