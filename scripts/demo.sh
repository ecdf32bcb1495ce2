#!/usr/bin/env bash
# Train the embedded demo: a small model learns arithmetic problems from its own correct answers, on CPU, in minutes.
# Arguments are Hydra overrides: bash scripts/demo.sh iterations=2 seed=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap.sh

echo "Running: .venv/bin/python scripts/train.py experiment=demo $*"
echo "Results: metrics, rollouts, checkpoints and the summary lie in a new folder under $PWD/outputs/"
exec .venv/bin/python scripts/train.py experiment=demo "$@"
