#!/usr/bin/env bash
# Writes the tables of docs/settings.md anew from the services' own settings; what stands above the first one stays.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/settings.md
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
sed '/^## /,$d' "$page" > "$scratch"
for main in services/*/__main__.py; do
    service=$(basename "$(dirname "$main")" | tr _ -)
    printf '## %s\n\n' "$service"
    .venv/bin/plimsoll config fields "$service" --markdown
    printf '\n'
done >> "$scratch"
sed -i '${/^$/d}' "$scratch"
cat "$scratch" > "$page"
