#!/usr/bin/env bash
# Any cgan command on this machine, from a virtual environment in .venv that is made and filled where there is none:
#     launch/local.sh train --config=configs/digits.py --workdir=runs/digits
#     EXTRA=cuda launch/local.sh train --config=configs/cifar10_cgan.py --workdir=runs/cifar
# $PYTHON makes the environment (python3); $EXTRA is cuda, tpu or nothing; $VENV is another place for it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}

if [[ ! -x $venv/bin/cgan ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet -e "$root${EXTRA:+[$EXTRA]}"
fi
exec "$venv/bin/cgan" "$@"
