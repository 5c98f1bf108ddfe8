#!/usr/bin/env bash
# Makes a Debian 12 machine ready: the packages of apt-packages.txt that are missing, and the virtual environment .venv.
# Asks for nothing when nothing is missing. Services that come with packages are not started.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
    case "$package" in '' | '#'*) continue ;; esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done < apt-packages.txt

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: this needs root; run it as root, or install them yourself: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    # Plimsoll runs private servers of its own: the packages' services stay off, unless this machine has a policy.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

stamp=.venv/.setup-stamp
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
    echo "setup: virtual environment .venv"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    # setuptools warns of every editable installation.
    PYTHONWARNINGS=ignore .venv/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
    touch "$stamp"
fi
