#!/usr/bin/env bash
# Return when the head of a Ray cluster answers: bash scripts/ray/wait_for.sh ADDRESS:PORT
#
#   EI_RAY_LIMIT=N    seconds to wait (default: 300)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deadline=$((SECONDS + ${EI_RAY_LIMIT:-300}))
until RAY_AUTH_MODE=token .venv/bin/ray health-check --address "$1" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
        echo "no Ray cluster: $1 does not answer; look into the log of its head node." >&2
        exit 3
    fi
    sleep 1
done
