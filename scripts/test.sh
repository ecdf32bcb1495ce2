#!/usr/bin/env bash
# Every check of this repository: lint, format, types, tests. Arguments go to pytest: bash scripts/test.sh -k buffer
# With --faults, the fault sweep instead: runs that are killed and starved, and a table of what became of them.
# With --long, what takes most of a minute each and guards one tool.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap.sh

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [[ "${1:-}" == --faults ]]; then
    # runs in one process leave a core to another one
    alone=tests/faults/test_local_runs.py failed=0
    .venv/bin/python -m pytest "$alone" -m faults -n 2 --dist load "${@:2}" || failed=$?
    .venv/bin/python -m pytest tests/faults -m faults --ignore "$alone" "${@:2}" || failed=$?
    exit "$failed"
fi
if [[ "${1:-}" == --long ]]; then
    exec .venv/bin/python -m pytest -m long "${@:2}"
fi
if (($# > 0)); then
    exec .venv/bin/python -m pytest "$@"
fi
# in the order of their names, so that files which take long are not the last to begin
.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
    -m "not alone and not faults and not long"
exec .venv/bin/python -m pytest -m "alone and not faults and not long" --durations 15
