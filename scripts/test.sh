#!/usr/bin/env bash
# Every check of this repository: lint, format, types, tests. Arguments go to pytest: bash scripts/test.sh -k buffer
# With --faults, the fault sweep instead: runs that are killed and starved, and a table of what became of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap.sh

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [[ "${1:-}" == --faults ]]; then
    exec .venv/bin/python -m pytest tests/faults -m "faults or real" "${@:2}"
fi
exec .venv/bin/python -m pytest "$@"
