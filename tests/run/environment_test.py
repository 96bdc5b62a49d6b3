"""The environment that a run writes down."""

import jax
import numpy as np

from cgan_jax.run import environment, workdir


def test_the_environment_names_versions_devices_and_a_command_that_a_shell_can_run():
    found = environment.describe(["/somewhere/cgan", "train", "--workdir=my runs/a"])
    assert found["command"] == "cgan train '--workdir=my runs/a'"
    assert (found["jax"], found["numpy"]) == (jax.__version__, np.__version__)
    assert (found["backend"], found["devices"], found["processes"]) == ("cpu", 8, 1)


def test_repeated_starts_are_written_once(tmp_path):
    for command in ("a", "a", "b"):
        workdir.append_environment(tmp_path, {"command": command})
    assert [start["command"] for start in workdir.read_environments(tmp_path)] == ["a", "b"]
