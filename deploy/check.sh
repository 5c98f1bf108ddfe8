#!/usr/bin/env bash
# Everything that can be said of the code without running it. Each check says its name; all run, the exit code sums up.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
failed=()

run() {
    local name=$1
    shift
    echo "check: $name"
    "$@" || failed+=("$name")
}

stubs_match() {
    local scratch
    scratch=$(mktemp -d)
    deploy/proto.sh "$scratch" || return 1
    local status=0
    while read -r file; do
        diff -q "$scratch/$file" "$file" > /dev/null || { echo "$file differs from its proto: run make proto"; status=1; }
    done < <(cd "$scratch" && find services -type f | sort)
    rm -rf "$scratch"
    return $status
}

breaking() {
    # Against the newest commit that touched the protos before this tree's; nothing to compare in a first commit.
    local base=${BASE_REV:-$(git rev-parse -q --verify HEAD~1 2>/dev/null || true)}
    [ -n "$base" ] && git cat-file -e "$base:buf.yaml" 2>/dev/null || return 0
    buf breaking --against ".git#ref=$base"
}

bpf_format() {
    clang-format-19 --style=file:bpf/.clang-format --dry-run -Werror bpf/*.bpf.c bpf/include/*.h tests/datapath/bpf/*.c
}

run "ruff" ruff check .
run "format" ruff format --check -q .
run "bpf format" bpf_format
run "mypy" mypy
run "imports" lint-imports --no-cache
run "protos" buf lint
run "proto format" buf format -d --exit-code
run "proto breaking" breaking
run "stubs" stubs_match

if [ ${#failed[@]} -gt 0 ]; then
    echo "check: failed: ${failed[*]}"
    exit 1
fi
echo "check: all good"
