#!/usr/bin/env bash
# Make .venv from a pinned set, once: a later call finds the stamp of a finished one and returns at once.
#
#   EI_EXTRA=cpu|gpu   which set (default: gpu where `nvidia-smi -L` answers, else cpu)
#   EI_PYTHON=PATH     which Python (default: the first of python3.11, 3.12, 3.13 and python3 that fits)
#   EI_DISK_GB=N       free disk to ask for (default: 6 for cpu, 15 for gpu)
#   EI_TIME_LIMIT=N    seconds after which one step of the install is given up (default: 3600)
#
# Honours pip's settings for the index and for find-links. A failure is one line on stderr, with the
# remedy and the log, and exit 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    echo "set-up failed: $*" >&2
    exit 1
}

pick_extra() {
    local extra=${EI_EXTRA:-}
    if [[ -z $extra ]]; then
        if timeout 10 nvidia-smi -L >/dev/null 2>&1; then extra=gpu; else extra=cpu; fi
    fi
    [[ $extra == cpu || $extra == gpu ]] || die "EI_EXTRA is '$extra'; set it to cpu or gpu."
    echo "$extra"
}

fits() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

pick_python() {
    local python seen="" candidates=(python3.11 python3.12 python3.13 python3)
    if [[ -n ${EI_PYTHON:-} ]]; then candidates=("$EI_PYTHON"); fi
    for python in "${candidates[@]}"; do
        if fits "$python"; then
            echo "$python"
            return
        fi
        seen+=", $python ($("$python" --version 2>/dev/null || echo "not found"))"
    done
    die "needs Python 3.11, 3.12 or 3.13 with venv, tried ${seen#, }; install one (on Debian or Ubuntu:" \
        "python3.11 and python3.11-venv) or set EI_PYTHON=/path/to/python3.11."
}

# What a finished .venv was made from. Any difference, a moved folder included, means: make it anew.
stamp() {
    echo "$1 | $2 | $PWD | $(sha256sum <"requirements/$1.txt")"
}

is_finished() {
    local version
    [[ -f .venv/stamp ]] || return 1
    version=$(.venv/bin/python --version 2>/dev/null) || return 1
    [[ -z ${EI_PYTHON:-} || $version == "$("$EI_PYTHON" --version 2>/dev/null)" ]] || return 1
    [[ $(<.venv/stamp) == "$(stamp "$1" "$version")" ]]
}

check_machine() {
    local system free needed=6
    system="$(uname -s) $(uname -m)"
    [[ $system == "Linux x86_64" ]] || die "the pinned sets are for Linux x86_64, this is $system; use a container."
    if [[ $1 == gpu ]]; then needed=15; fi
    needed=${EI_DISK_GB:-$needed}
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
    ((free >= needed)) || die "the $1 set needs $needed GB of disk, $PWD has $free GB free; make room there."
}

# attempt WHAT REMEDY COMMAND...: into the log, within the time limit.
attempt() {
    local what=$1 remedy=$2 code=0 limit=${EI_TIME_LIMIT:-3600}
    shift 2
    timeout --foreground "$limit" "$@" >>"$log" 2>&1 || code=$?
    if ((code == 0)); then return; fi
    if ((code == 124)); then remedy="took over $limit s; check the network or raise EI_TIME_LIMIT"; fi
    if grep -qi "no space left" "$log"; then remedy="the disk is full; make room and start again"; fi
    die "$what: $remedy (log: $log)."
}

pip_setting() {
    .venv/bin/python -m pip config get "global.$1" 2>/dev/null || true
}

# uv does not read pip's settings, so they are handed over.
configure_uv() {
    local folder index
    for folder in ${PIP_FIND_LINKS:-$(pip_setting find-links)}; do uv+=(--find-links "$folder"); done
    index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$(pip_setting index-url)}}}
    if [[ -n $index ]]; then export UV_DEFAULT_INDEX=$index; fi
    if [[ -n ${PIP_CERT:-} ]]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}; fi
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-30} UV_HTTP_RETRIES=${UV_HTTP_RETRIES:-2}
}

# A CPU build of torch (+cpu) lies on PyTorch's own index, unless find-links hold its wheel. It goes first and
# alone, because that index also answers for other packages of the list, in versions that are not ours.
install_cpu_torch() {
    local pin
    pin=$(grep '^torch==.*+cpu' "$list") || return 0
    if "${uv[@]}" --no-index --dry-run "$pin" >>"$log" 2>&1; then return; fi
    attempt "installing $pin" "PyTorch's CPU index did not give it; check the network or name a folder with its \
wheel in PIP_FIND_LINKS" "${uv[@]}" --torch-backend cpu "$pin"
}

make_venv() {
    local extra=$1 python=$2 list=requirements/$1.txt log
    local unreachable="the package index did not answer as it should; check the network or set PIP_INDEX_URL"
    # compiled once: where nobody may write bytecode, each process would do it anew, for tens of seconds
    local uv=(.venv/bin/uv pip install --python .venv/bin/python --no-deps --compile-bytecode)
    log=$(mktemp "${TMPDIR:-/tmp}/expert-iteration-XXXXXX.log")
    echo "Setting up .venv: $("$python" --version), $(grep -c '==' "$list") packages of $list (log: $log) ..."
    rm -f .venv/stamp
    attempt "making .venv" "check that $PWD can be written to" "$python" -m venv --clear .venv
    attempt "installing uv" "$unreachable" .venv/bin/python -m pip install --disable-pip-version-check \
        --no-deps --timeout 15 --retries 2 "$(grep '^uv==' "$list")"
    configure_uv
    install_cpu_torch
    attempt "installing $list" "$unreachable" "${uv[@]}" -r "$list"
    attempt "installing the project" "see the log" "${uv[@]}" --no-build-isolation --editable .
    stamp "$extra" "$(.venv/bin/python --version)" >.venv/stamp
    rm -f "$log"
    echo "Set up in $SECONDS s."
}

main() {
    local extra python
    extra=$(pick_extra)
    if is_finished "$extra"; then return; fi
    python=$(pick_python)
    check_machine "$extra"
    # Two first starts at once: the second waits for the first and finds its stamp.
    exec 9<"requirements/$extra.txt"
    flock --wait "${EI_TIME_LIMIT:-3600}" 9 || die "another set-up in $PWD does not end; stop it and start again."
    if is_finished "$extra"; then return; fi
    make_venv "$extra" "$python"
}

main
