#!/usr/bin/env bash
# What one accelerator does with this project, in commands of at most nine minutes that need no network.
#
#     bash benchmarks/accelerator.sh --out=FOLDER [--minutes=8.5] [--only=REGEX] [--setup=FILE]
#     bash benchmarks/accelerator.sh --out=FOLDER --only=train --minutes=5 [--setup=FILE]
#
# Each stage has its own limit, and a stage that fails or is cut off does not end the others. Seconds on an H100 stand in
# brackets: the speed of five recipes [29, 99, 61, 25, 96], the operations of a step [79], the blocks [over 64 for two of
# five, 56 for two others], the classic step beside PyTorch's [66], the convolutions [over 70], the compiled ones [not run
# yet]. The minutes that are left train cifar10_biggan_cr_short [95 to compile]; its generator (38 MB), pictures and logs
# are kept. That is more than nine minutes: call it with --only='speed|operations', --only='blocks$|^step$|conv' and
# --only=train. --setup names a file of shell commands that says where packages and images are.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
out='' minutes=8.5 only=. setup='' quick=''
for word in "$@"; do
    case $word in
    --out=*) out=${word#*=} ;;
    --minutes=*) minutes=${word#*=} ;;
    --only=*) only=${word#*=} ;;
    --setup=*) setup=${word#*=} ;;
    --quick) quick=yes ;; # a dry run of the stages: next to no work in each
    *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
[[ -n $out ]] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$out"
# shellcheck source=/dev/null
[[ -z $setup ]] || . "$setup" || exit 1
python=${PYTHON:-python3}
# Two frameworks share the memory in some stages, so neither takes most of it in advance.
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false CGAN_CACHE_DIR=${CGAN_CACHE_DIR:-$(mktemp -d)}
ends=$("$python" -c "print(int($minutes * 60))")

# stage NAME SECONDS COMMAND...: runs the command for at most SECONDS of the time that is left, its output in a log.
stage() {
    local name=$1 limit=$2 left=$((ends - SECONDS)) began=$SECONDS code
    shift 2
    [[ $name =~ $only ]] || return 0
    ((left > 10)) || { echo "== $name: no time left"; return 0; }
    timeout -s INT -k 20 $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
    code=$?
    echo "== $name: exit code $code after $((SECONDS - began)) s"
    tail -n "${lines:-40}" "$out/$name.log"
}

{
    date -u +%Y-%m-%d
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
    "$python" -c 'import jax, flax; print("jax", jax.__version__, "flax", flax.__version__, jax.devices())'
} 2>&1 | tee "$out/about.log"

calls=10 batch=512 rounds=5 many=20 steps=64
[[ -z $quick ]] || calls=1 batch=4 rounds=1 many=1 steps=1
for recipe in cifar10_dcgan cifar10_biggan_cr_short cifar10_sngan digits cifar10_r3gan_lite; do
    lines=18 stage "speed_$recipe" 110 "$python" -m cgan_jax benchmark --config="configs/$recipe.py" --calls=$calls --noparts
done
lines=30 stage operations 140 "$python" -m cgan_jax benchmark --config=configs/cifar10_sngan.py --calls=$calls --noparts \
    --operations=25
stage blocks 140 "$python" -m benchmarks.blocks --dtype=bfloat16 --batch=$batch --rounds=$rounds
stage step 110 "$python" -m benchmarks.training --only='PyTorch (float32|bfloat16)|cgan' --rounds=3 --steps=$steps
stage step_compiled 150 "$python" -m benchmarks.training --only='PyTorch compiled' --rounds=3 --steps=$steps
stage convolutions 90 "$python" -m benchmarks.convolutions --dtype=bfloat16 --batch=$((4 * batch)) --calls=$many \
    --rounds=$rounds --no-step --only='transposed 4x4|G last|D (first|second)|3x3 s1 at 16|deep G transposed 7x7 s2, 8'
stage blocks_compiled 140 "$python" -m benchmarks.blocks --dtype=bfloat16 --batch=$batch --rounds=$rounds --compiled

# A minute and a half is kept for compilation, the score at the end and the export.
left=$("$python" -c "print(($ends - $SECONDS) / 60 - 1.5)")
[[ -z $quick ]] || left=0.05
unset XLA_PYTHON_CLIENT_PREALLOCATE
run=$(mktemp -d)/biggan
lines=40 stage train 600 "$python" -m cgan_jax train --config=configs/cifar10_biggan_cr_short.py --workdir="$run" \
    --config.train.max_minutes="$left" --config.evaluate.every_kimg=100000.0 --config.train.log_kimg=160.0 \
    --config.train.sample_kimg=1600.0 --config.checkpoint.every_kimg=3200.0
[[ -d $run ]] || exit 0
ends=$((SECONDS + 60))
stage train_export 60 "$python" -m cgan_jax export --workdir="$run" --out="$out/cifar10_biggan_cr_short.cgan" --force
cp "$run"/*.json* "$run"/*.png "$run"/model.txt "$run"/samples/*.png "$out"
