#!/usr/bin/env bash
# Every check of this repository: lint, format, types, tests. Arguments go to pytest: bash scripts/test.sh -k buffer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/bootstrap.sh

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
