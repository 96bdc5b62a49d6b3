"""Several processes of one run: their flags, how they find each other, and that they agree."""

import os
import signal
import socket
import subprocess
import sys

import jax
import pytest
from jax._src.clusters import ClusterEnv

from cgan_jax.errors import UsageError
from cgan_jax.parallel import make_mesh
from cgan_jax.run import processes
from tests.command_line import cgan, write_recipe

NOWHERE = {"coordinator_address": None, "num_processes": None, "process_id": None}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_processes": 2}, "given --num_processes=2, --coordinator_address and --process_id must be given too"),
        ({"process_id": 0}, "--coordinator_address and --num_processes must be given too"),
        ({"coordinator_address": "a", "num_processes": 2, "process_id": 0}, "must be HOST:PORT, given 'a'"),
        ({"coordinator_address": "a:b", "num_processes": 2, "process_id": 0}, "must be HOST:PORT, given 'a:b'"),
        ({"coordinator_address": ":80", "num_processes": 2, "process_id": 0}, "must be HOST:PORT, given ':80'"),
        ({"coordinator_address": "a:70000", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator_address": "a:80", "num_processes": 2, "process_id": 2}, "below --num_processes=2, given 2"),
        ({"coordinator_address": "a:80", "num_processes": 2, "process_id": -1}, "at least 0"),
        ({"coordinator_address": "a:80", "num_processes": 0, "process_id": 0}, "below --num_processes=0"),
    ],
)
def test_flags_that_cannot_be_are_refused(given, says):
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        processes.checked({**NOWHERE, **given})


def test_wrong_flags_end_the_command_before_anything_is_written(recipe, tmp_path, capsys):
    config = write_recipe(tmp_path, recipe)
    assert cgan("train", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--num_processes=2") == 2
    error = capsys.readouterr().err
    assert error.startswith("cgan: error: given --num_processes=2") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_url_of_another_scheme_is_not_a_folder(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_recipe(tmp_path, recipe)
    assert cgan("train", f"--config={config}", "--workdir=s3://bucket/run") == 2
    assert "--workdir=s3://bucket/run must be a folder, or gs://BUCKET/FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "s3:").exists()


def test_flags_reach_jax(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place, **_: given.append(place))
    with processes.joined("host:29500", 4, 3):
        pass
    assert given == [("host:29500", 4, 3)]
    assert "process 3 of 4 waits for the others at host:29500 (5 minutes at most)" in capsys.readouterr().err


JOINS = """
import sys, time
from cgan_jax.run import processes
with processes.joined(sys.argv[1], 2, int(sys.argv[2])):
    print("joined", file=sys.stderr, flush=True)
    time.sleep(60)
"""


def test_sigterm_before_training_is_not_swallowed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [
        subprocess.Popen([sys.executable, "-c", JOINS, address, number], stderr=subprocess.PIPE, text=True)
        for number in ("0", "1")
    ]
    try:
        for process in pair:
            assert any(line == "joined\n" for line in process.stderr)
        for process in reversed(pair):  # When the first has gone, the others hear of it at once.
            process.terminate()
            process.wait(timeout=20)
        assert [process.returncode for process in pair] == [-signal.SIGTERM] * 2
    finally:
        for process in pair:
            process.kill()


def test_a_single_process_does_not_wait(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("waits"))
    with processes.joined(None, 1, None):
        pass
    with processes.joined(None, None, None):
        assert processes.is_first()


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "whom"),
    [
        ({}, ""),
        ({**SLURM, "SLURM_NTASKS": "8"}, "the 8 tasks of Slurm job 7"),
        ({**SLURM, "SLURM_NTASKS": "1"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, ""),  # in sbatch, outside of srun
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "the 4 processes of Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "the pods of this Kubernetes job"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "the hosts of this TPU slice"),
        ({"JAX_PLATFORMS": "cpu"}, ""),
    ],
)
def test_peers_are_detected_from_the_environment(environment, whom, monkeypatch):
    there = {"kubernetes": "KUBERNETES_SERVICE_HOST" in environment, "libtpu": "TPU_WORKER_HOSTNAMES" in environment}
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: there[name] or None)
    assert processes.detected_peers(environment) == whom


def test_a_process_runs_alone_if_jax_detects_no_peers(monkeypatch):
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes, "detected_peers", lambda _: "the hosts of this TPU slice")
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with processes.joined(None, None, None):
        assert jax.process_count() == 1 and processes.is_first()


def test_peers_that_cannot_be_found_are_one_line(monkeypatch):
    def initialize(**_):
        raise RuntimeError("may not list pods")

    monkeypatch.setattr(processes, "detected_peers", lambda _: "the pods of this Kubernetes job")
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with (
        pytest.raises(UsageError, match="cannot find the pods of this Kubernetes job: may not list pods; give --coord"),
        processes.joined(None, None, None),
    ):
        pass


def test_jax_reads_the_places_of_two_nodes_from_slurm(monkeypatch):
    """The variables are those that srun sets on the second node of two, with two tasks each."""
    variables = {"SLURM_JOB_ID": "4096", "SLURM_STEP_NODELIST": "gpu[017-018],big3", "SLURM_NTASKS": "4"}
    for name, value in {**variables, "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert found == ("gpu017:61440", 4, 2, [0])


def test_a_single_process_gets_every_answer_at_once():
    any_process = processes.AnyProcess(make_mesh())
    assert [any_process(False), any_process(True), any_process(False)] == [False, True, False]
    assert processes.of_first(None) is None and processes.of_first(0.25) == 0.25
    with pytest.raises(UsageError, match="mine"), processes.together():
        raise UsageError("mine")


PAIR = """
from cgan_jax.run import processes
from cgan_jax.errors import UsageError
from cgan_jax.parallel import make_mesh
import jax
try:
    with processes.joined(None, None, None):
        import sys
        me = jax.process_index()
        any_process = processes.AnyProcess(make_mesh())
        said = [any_process(call == 1 and me == 1) for call in range(4)]
        cost, none = processes.of_first(0.1 if me == 0 else None), processes.of_first(None)
        print("agreed", jax.process_count(), me, said, cost, none, processes.is_first(), file=sys.stderr)
        print("for the first alone")
        with processes.together():
            if me == 1:
                raise UsageError("no data here")
except UsageError as error:
    print("ended:", error, file=sys.stderr)
"""


def test_two_processes_find_each_other_by_slurms_variables_and_agree():
    job = os.getpid()  # jax derives the port from it
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "SLURM_JOB_ID": str(job), "SLURM_NTASKS": "2"}
    environment |= {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_NODES": "1"}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PAIR],
            env={**environment, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    outputs = [process.communicate(timeout=600) for process in pair]
    for number, (_, error) in enumerate(outputs):
        assert f"waiting for the 2 tasks of Slurm job {job} (5 minutes at most)" in error, error
        assert f"process {number} has 2 of 4 devices" in error
        # Both learn of the second call's request at the third call.
        assert f"agreed 2 {number} [False, False, True, False] 0.1 None {number == 0}" in error, error
    assert "for the first alone" in outputs[0][0] and "for the first alone" not in outputs[1][0]
    assert "ended: no data here" in outputs[1][1]
    assert "ended: process 1 cannot go on; its error message says why" in outputs[0][1]
