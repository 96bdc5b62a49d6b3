#!/usr/bin/env bash
# Runs `cgan train` as several processes on this machine, each with simulated devices, as on several hosts:
#     PROCESSES=2 DEVICES=2 launch/local_multiprocess.sh --config=configs/digits.py --workdir=runs/digits
# Passes Ctrl-C and SIGTERM on. Exits with the code of a process that failed, else 75 if one was interrupted, else 0.
# $PYTHON runs the processes (default python3); they meet at $PORT (default: a free one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3} processes=${PROCESSES:-2} devices=${DEVICES:-2}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < processes; i++)); do
    JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices "$python" -m cgan_jax train "$@" \
        --coordinator_address="127.0.0.1:$port" --num_processes="$processes" --process_id="$i" &
    pids+=($!)
done

code=0
for pid in "${pids[@]}"; do
    # A signal ends `wait` before the process ends.
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done
    status=0
    wait "$pid" || status=$?
    if ((code == 0 || code == 75)) && ((status != 0)); then code=$status; fi
done
exit "$code"
