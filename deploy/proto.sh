#!/usr/bin/env bash
# Generates the Python stubs of services/api/ into the folder given (default: this tree).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
export PATH="$PWD/.venv/bin:$PATH"
python -m grpc_tools.protoc -I. --python_out="$out" --grpc_python_out="$out" \
    --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" services/api/*/v1/*.proto
