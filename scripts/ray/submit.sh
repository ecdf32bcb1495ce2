#!/usr/bin/env bash
# A run as a job of the cluster that this machine reaches, over its own nodes 1..N:
#
#   bash scripts/ray/submit.sh experiment=cs336_ei placement.nodes=2 hydra.run.dir=/shared/outputs/first
#
#   RAY_API_SERVER_ADDRESS=URL    of the head's dashboard (default: http://127.0.0.1:8265, which
#                                 `ray dashboard scripts/ray/cluster.yaml` brings to this machine)
#   EI_FOLDER=PATH                of the repository on the head (default: expert_iteration in the home there)
#
# Prints what the run prints. `ray job stop` saves and ends it: it has two minutes for that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() {
    echo "no job: $*" >&2
    exit 2
}

[[ -n ${RAY_AUTH_TOKEN:-} || -s ${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token} ]] || die "there is no token of" \
    "the cluster; copy its file to ~/.ray/auth_token, or name it in RAY_AUTH_TOKEN_PATH."

export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
# the command goes through the shell of the head
plain='^[][A-Za-z0-9_.,:=/+@%-]*$'
for word in "$@" "${EI_FOLDER:-}"; do
    [[ $word =~ $plain ]] || die "a shell would read '$word' otherwise; put it into a file of config/experiment/."
done
# the run takes the place of that shell, so that a stop reaches it
# shellcheck disable=SC2088  # for the head
exec .venv/bin/ray job submit --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}}' -- \
    cd "${EI_FOLDER:-~/expert_iteration}" '&&' \
    exec .venv/bin/python scripts/train.py placement=cluster ray.address=auto "$@"
