#!/usr/bin/env bash
# One node of a Ray cluster, until it gets SIGTERM or the cluster ends:
#
#   bash scripts/ray/start_node.sh head ADDRESS:PORT [OPTIONS of `ray start`]
#   bash scripts/ray/start_node.sh join ADDRESS:PORT [OPTIONS of `ray start`]
#
# ADDRESS is that of the head, as the other nodes reach it. RAY_AUTH_TOKEN_PATH names a file with the token of
# the cluster, which nobody else may read; without it nothing is started. What Ray writes lies in a folder that
# nobody else may enter, and goes with the node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() {
    echo "no Ray node: $*" >&2
    exit 2
}

role=${1:-} address=${2:-} token=${RAY_AUTH_TOKEN_PATH:-}
[[ $role == head || $role == join ]] || die "the role is '$role'; say head or join."
[[ $address =~ ^[^:]+:[0-9]+$ ]] || die "the address of the head is '$address'; say ADDRESS:PORT."
[[ -s $token ]] || die "RAY_AUTH_TOKEN_PATH ('$token') names no file with a token; write one, as in" \
    "(umask 077; openssl rand -hex 32 >FILE)."
[[ $(stat -Lc %a "$token") == ?00 ]] || die "others may read $token; chmod 600 it."

unset RAY_AUTH_TOKEN RAY_ADDRESS
# absolute, because the processes of a node work elsewhere
RAY_AUTH_TOKEN_PATH=$(realpath -- "$token")
export RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0

if [[ $role == head ]]; then
    where=(--head "--node-ip-address=${address%:*}" "--port=${address##*:}" --include-dashboard=false)
else
    bash scripts/ray/wait_for.sh "$address"
    where=("--address=$address")
fi
# short, because the paths of sockets are
folder=$(mktemp -d /tmp/ray-XXXXXX)
trap 'rm -rf "$folder"' EXIT
.venv/bin/ray start "${where[@]}" "--temp-dir=$folder/ray" --disable-usage-stats --block "${@:3}" &
node=$!
trap 'kill -TERM $node 2>/dev/null || true' TERM INT
code=0
wait $node || code=$?
# a signal has ended that wait, not the node
wait $node 2>/dev/null || true
exit $code
