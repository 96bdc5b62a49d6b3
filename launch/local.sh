#!/usr/bin/env bash
# Runs a cgan command on this machine, in the virtual environment .venv. Creates and fills .venv if it is missing.
#     launch/local.sh train --config=configs/digits.py --workdir=runs/digits
#     EXTRA=cuda launch/local.sh train --config=configs/cifar10_cgan.py --workdir=runs/cifar
# $PYTHON creates the environment (default python3), $EXTRA is cuda, tpu or empty, $VENV replaces .venv.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}

if [[ ! -x $venv/bin/cgan ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet -e "$root${EXTRA:+[$EXTRA]}"
fi
exec "$venv/bin/cgan" "$@"
