#!/usr/bin/env bash
# Creates ~/cgan_venv on a TPU VM and installs this checkout in it. tpu_vm.py runs it on every worker after each sync.
# TPU VM images have a Python older than 3.11, so uv installs a newer one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ! -x $HOME/cgan_venv/bin/python ]]; then
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --python 3.12 "$HOME/cgan_venv"
fi
python3 -m uv pip install --quiet --python "$HOME/cgan_venv/bin/python" '.[tpu]'
