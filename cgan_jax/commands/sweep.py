"""Train variations of a recipe, one after another, and compare them in a table and a picture.

    cgan sweep --config=cifar10_cgan_deep --workdir=runs/study \\
        --vary=generator.kernel_size=3,5 --vary=g_optimizer.learning_rate+d_optimizer.learning_rate=2e-4,5e-4
    cgan sweep --config=digits --workdir=runs/grid --grid --config.train.total_kimg=10.0 \\
        --vary=generator.width=16,32 --vary=generator.latent_dim=32,64

Each --vary names a field of the recipe and the values it takes, or several fields joined by + that take them together.
The recipe itself is trained once, as the baseline, then each value alone; with --grid every combination of all
--vary. Other values of the recipe are overridden for all runs by --config.section.field=value.

Every run is a `cgan train` in a sub-folder of --workdir, named for what the run varies, with its recipe.py inside.
All recipes are checked before the first is trained. A run that a guard stopped has a row in the table and is trained
again only if its folder is deleted; a run that crashed is trained again. Ctrl-C saves and ends with exit code 75; the
same command goes on with the rest, then writes summary.md, summary.csv and curves.png.
"""

import contextlib
import json
import pprint
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax import recipe as recipes
from cgan_jax.commands import _flags, _recipe_flags
from cgan_jax.errors import GuardError, Interrupted, UsageError
from cgan_jax.files import json_text
from cgan_jax.files.storage import is_remote, place, read_text, write_whole
from cgan_jax.jax_environment import no_device
from cgan_jax.run import variations
from cgan_jax.run.variations import NamedRecipe

_OUTCOMES = "outcomes.json"
_ENDINGS = {0: "finished", GuardError.exit_code: "stopped by a guard", Interrupted.exit_code: "interrupted"}
_SECOND_INTERRUPT = 130
_CODES = (*range(256), *(-number for number in signal.Signals))  # of a process; a signal's is negative


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    _flags.define(flags, "cache", workdir="The folder of the sweep, with a sub-folder per run.")
    absl_flags.DEFINE_multi_string(
        "vary", [], "FIELD=VALUE,VALUE,... or FIELD+FIELD=VALUE,...; may be given several times.", flag_values=flags
    )
    absl_flags.DEFINE_bool("grid", False, "Train every combination, not one change at a time.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    needed = {"--config=NAME": flags.config, "--workdir=FOLDER": flags.workdir, "--vary=FIELD=VALUES": flags.vary}
    _flags.need("sweep", needed)
    recipe = _recipe_flags.given(flags)
    recipes.check(recipe)
    varied = [variations.parse(text, recipe) for text in flags.vary]
    runs = variations.expand(recipe, varied, flags.grid)
    for run in runs:
        _named(run, recipes.check, run.recipe)
    from cgan_jax.run.workdir import CONFIG, locked

    workdir = place(flags.workdir)
    if is_remote(workdir):
        raise UsageError(f"--workdir={workdir}: a sweep needs a folder; cgan train writes to buckets")
    if (workdir / CONFIG).exists():
        raise UsageError(f"{workdir} holds a run, not a sweep; use another --workdir")
    _leave_the_devices_alone()
    left = [run for run in runs if not _is_over(run, workdir)]
    if left:
        _check_all(left)
    with locked(workdir):
        _train_all(runs, workdir, flags.cache)
        _summarize(runs, [field for variation in varied for field in variation.fields], workdir)
    unfinished = [run.name for run in runs if not _is_over(run, workdir)]
    if unfinished:
        raise UsageError(f"{', '.join(unfinished)} did not finish; run the same command again to go on")


def _named(run: NamedRecipe, check, *arguments: Any) -> Any:
    """What a check returns; its complaint, with the name of the run."""
    try:
        return check(*arguments)
    except UsageError as error:
        raise UsageError(f"{run.name}: {error}") from error


def _leave_the_devices_alone() -> None:
    """This process only looks at shapes and files; the accelerators belong to the one that trains."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _count_devices() -> int:
    """The devices that a run will have, counted by another process."""
    code = "import jax; print(jax.device_count())"
    counted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if counted.returncode:
        raise UsageError(no_device(counted.stderr.strip().rpartition("\n")[2].partition(": ")[2]))
    return int(counted.stdout)


def _check_all(runs: Sequence[NamedRecipe]) -> None:
    """Raises UsageError for the first run that could not start, before any does."""
    from cgan_jax.train import load_dataset, prepare

    devices, loaded = _count_devices(), {}
    for run in runs:
        _named(run, recipes.check_devices, run.recipe, devices)
        section = json.dumps(run.recipe["dataset"])
        if section not in loaded:
            loaded[section] = _named(run, load_dataset, run.recipe)
        _named(run, prepare, run.recipe, loaded[section])


def _is_over(run: NamedRecipe, workdir: Path) -> bool:
    """Whether a run is at its end and evaluated, or was stopped by a guard.

    Raises UsageError if its folder holds another run.
    """
    from cgan_jax.run import workdir as workdirs
    from cgan_jax.run.checkpoint import Checkpoints

    folder = workdir / run.name
    if not (folder / workdirs.CONFIG).exists():
        return False
    recipes.check_same_run(workdirs.read_info(folder).recipe, run.recipe, str(folder))
    outcome = _outcomes(workdir).get(run.name)
    if outcome == GuardError.exit_code:
        return True
    last = (workdirs.read_metrics(folder) or [None])[-1]
    if last is None or not workdirs.is_at_end(last, run.recipe["train"]):
        return False
    if outcome != 0:  # it may have been killed before it saved its last step
        with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
            if last["step"] not in checkpoints.steps():
                return False
    evaluated = [line["step"] for line in workdirs.read_metrics(folder, workdirs.EVALUATIONS)]
    return last["step"] in evaluated or not run.recipe["evaluate"]["metrics"]


def _outcomes(workdir: Path) -> dict[str, int]:
    """The exit code of every run that has ended, by name."""
    try:
        outcomes = json_text.parsed(read_text(workdir / _OUTCOMES))
        if not isinstance(outcomes, dict) or not all(code in _CODES for code in outcomes.values()):
            raise ValueError("it is no object of exit codes")
        return outcomes
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{workdir / _OUTCOMES} cannot be read: {error}") from error


def _train_all(runs: Sequence[NamedRecipe], workdir: Path, cache: bool) -> None:
    """Trains what is not over. Raises Interrupted, or KeyboardInterrupt after a second Ctrl-C."""
    from cgan_jax.run.progress import duration, say
    from cgan_jax.run.signals import RelayedRequests

    with RelayedRequests() as stop:
        for number, run in enumerate(runs, 1):
            told = f"run {number} of {len(runs)}: {run.name}"
            if _is_over(run, workdir):
                say(f"{told} {_ending(_outcomes(workdir).get(run.name, 0))} before")
                continue
            if not stop.requests:
                say(told)
                began = time.monotonic()
                code = _train(stop, run, workdir / run.name, cache)
                write_whole(workdir / _OUTCOMES, json.dumps(_outcomes(workdir) | {run.name: code}, indent=2) + "\n")
                say(f"{told} {_ending(code)} after {duration(time.monotonic() - began)}")
            if stop.requests > 1:
                raise KeyboardInterrupt
            if stop.requests or code == Interrupted.exit_code:
                raise Interrupted(f"stopped at run {number} of {len(runs)}; run the same command again to go on")


def _train(stop, run: NamedRecipe, folder: Path, cache: bool) -> int:
    """The exit code of `cgan train` in another process, so that the sweep survives a crash."""
    folder.mkdir(exist_ok=True)
    recipe = folder / "recipe.py"
    write_whole(recipe, _as_file(run))
    arguments = ["train", f"--config={recipe}", f"--workdir={folder}", *([] if cache else ["--nocache"])]
    return stop.run([sys.executable, "-m", "cgan_jax", *arguments])


def _as_file(run: NamedRecipe) -> str:
    """A recipe file that says all of one run."""
    values = pprint.pformat(run.recipe, width=110, sort_dicts=False)
    return (
        f'"""{run.name}"""\n\nfrom ml_collections import ConfigDict\n\n\ndef get_config() -> ConfigDict:\n'
        f"    return ConfigDict(\n{values}\n    )\n"
    )


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return _ENDINGS.get(code, f"ended with exit code {code}")


def _summarize(runs: Sequence[NamedRecipe], fields: Sequence[str], workdir: Path) -> None:
    """Writes and prints the table of all runs, and draws their curves."""
    from cgan_jax.evaluation import comparison
    from cgan_jax.run.progress import say

    leaves = {run.name: dict(recipes.flattened(run.recipe)) for run in runs}
    outcomes = _outcomes(workdir)
    endings = {run.name: _ending(outcomes.get(run.name, 0)) for run in runs}
    values = {name: {field: of_run[field] for field in fields} for name, of_run in leaves.items()}
    table = comparison.write(workdir, values, endings)
    say(f"\n{table}\ntable and curves in {workdir}: summary.md, summary.csv, curves.png")
