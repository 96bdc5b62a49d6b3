"""The scripts of launch/: the commands they would run, what they do when these fail, and what they ask for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]
TERMS = "--config.loss.g_terms={'hinge': {'weight': 1.0}}"
TRAIN = ["--config=configs/cifar10_cgan.py", TERMS, "--workdir=runs/a b"]

GCLOUD = '''#!{python}
"""Answers with the next of $STUB/answers: [exit code, stdout, stderr] per call, and writes down each call."""
import json, os, sys
from pathlib import Path

stub = Path(os.environ["STUB"])
answers = json.loads((stub / "answers").read_text())
with open(stub / "calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
code, out, error = answers.pop(0)
(stub / "answers").write_text(json.dumps(answers))
print(out, end="")
print(error, end="", file=sys.stderr)
sys.exit(code)
'''


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(*command: object, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """A process with `path` before all else on PATH."""
    words = [str(word) for word in command]
    front = f"{path}{os.pathsep}" if path else ""
    environment = {**os.environ, **environment, "PATH": front + os.environ["PATH"]}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


def tpu_vm(command: str, *flags: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    where = ["--name=gan", "--zone=us-central1-a", "--poll_seconds=0"]
    return run(sys.executable, LAUNCH / "tpu_vm.py", command, *where, *flags, path=path, **environment)


WHERE = "--zone=us-central1-a --project=p"
DESCRIBE = f"gcloud compute tpus queued-resources describe gan --format=json {WHERE}"
DRY = f"""{DESCRIBE}
{DESCRIBE}
gcloud compute tpus queued-resources create gan --node-id=gan --accelerator-type=v5litepod-8 \
--runtime-version=v2-alpha-tpuv5-lite --labels=launched-by=cgan-jax --spot {WHERE}
{DESCRIBE}
git -C {shlex.quote(str(ROOT))} archive --format=tar.gz --output=/tmp/cgan_jax.tar.gz HEAD
gcloud compute tpus tpu-vm scp /tmp/cgan_jax.tar.gz gan:cgan_jax.tar.gz --worker=all {WHERE}
gcloud compute tpus tpu-vm ssh gan --worker=all '--command=for _ in $(seq 120); do pkill -TERM -f "[c]gan train" || \
break; sleep 1; done; mkdir -p cgan_jax && find cgan_jax -mindepth 1 -maxdepth 1 \
! -name runs -exec rm -rf {{}} + && tar -xzf cgan_jax.tar.gz -C cgan_jax && bash cgan_jax/launch/tpu_setup.sh' {WHERE}
"""


def test_a_dry_run_prints_the_very_lines_and_runs_none(tmp_path):
    flags = ["--project=p", "--spot", "--dry_run", "--", *TRAIN]
    done = tpu_vm("train", *flags, path=None, STUB=str(tmp_path / "none"))
    assert done.returncode == 0 and done.stderr == ""
    *lines, last = done.stdout.splitlines()
    assert "\n".join([*lines, ""]) == DRY
    *words, command, zone, project = shlex.split(last)
    assert words == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "gan", "--worker=all"] and (zone, project) == tuple(
        WHERE.split()
    )
    # What the worker's shell makes of it is what was typed here.
    remote = shlex.split(command.removeprefix("--command=cd cgan_jax && exec env "))
    assert remote == ["JAX_COORDINATOR_PORT=8476", "../cgan_venv/bin/cgan", "train", *TRAIN]


def test_fetching_and_deleting_dry():
    fetch = tpu_vm("fetch", "--from=cgan_jax/runs/a b", "--to=runs", "--dry_run").stdout
    assert shlex.split(fetch)[4:] == [
        *["scp", "--recurse", "gan:cgan_jax/runs/a b", "runs", "--worker=0", "--zone=us-central1-a"]
    ]
    delete = tpu_vm("delete", "--dry_run").stdout.splitlines()
    assert delete[1] == ("gcloud compute tpus queued-resources delete gan --force --quiet --zone=us-central1-a")


def described(state: str, label: str = "cgan-jax") -> list:
    node = {"labels": {"launched-by": label}} if label else {}
    return [0, json.dumps({"state": {"state": state}, "tpu": {"nodeSpec": [{"node": node}]}}), ""]


NOT_FOUND = [1, "", "ERROR: (gcloud) NOT_FOUND: Resource 'gan' was not found"]
FINE = [0, "", ""]


@pytest.fixture
def gcloud(tmp_path):
    """Runs tpu_vm.py against prepared answers; returns the process and the commands it ran, in short."""

    def answered(answers: list, command: str, *flags: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        (tmp_path / "answers").write_text(json.dumps(answers))
        executable(tmp_path / "gcloud", GCLOUD.format(python=sys.executable))
        done = tpu_vm(command, *flags, path=tmp_path, STUB=str(tmp_path))
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        assert json.loads((tmp_path / "answers").read_text()) == [], done.stderr
        assert all(call[:2] == ["compute", "tpus"] for call in calls)
        return done, [call[3] for call in calls]

    return answered


TRAIN_FLAGS = ["--", "--config=configs/digits.py", "--workdir=runs/digits"]
ARRIVES = [NOT_FOUND, NOT_FOUND, FINE, described("WAITING_FOR_RESOURCES"), described("ACTIVE"), FINE, FINE]
ARRIVED = ["describe", "describe", "create", "describe", "describe", "scp", "ssh", "ssh"]


def test_a_run_that_nothing_disturbs(gcloud):
    done, calls = gcloud([*ARRIVES, FINE], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr
    assert calls == ARRIVED
    assert "waiting for gan: WAITING_FOR_RESOURCES" in done.stdout


def test_a_preempted_slice_is_deleted_and_asked_for_again(gcloud):
    lost = [[255, "", "Connection closed"], described("SUSPENDED")]
    replaced = [described("SUSPENDED"), described("SUSPENDED"), FINE, described("DELETING"), NOT_FOUND]
    again = [NOT_FOUND, FINE, described("ACTIVE"), FINE, FINE, FINE]
    done, calls = gcloud([*ARRIVES, *lost, *replaced, *again], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr
    deleted = ["describe", "describe", "describe", "delete", "describe", "describe"]
    assert calls == [*ARRIVED, *deleted, "describe", "create", "describe", "scp", "ssh", "ssh"]


@pytest.mark.parametrize("code", [75, 134, 255])
def test_a_run_that_was_interrupted_goes_on_where_the_slice_still_is(gcloud, code):
    stopped = [[code, "", ""], described("ACTIVE")]
    again = [described("ACTIVE"), described("ACTIVE"), described("ACTIVE"), FINE, FINE, FINE]
    done, calls = gcloud([*ARRIVES, *stopped, *again], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr
    assert calls.count("create") == 1 and "delete" not in calls


@pytest.mark.parametrize("code", [1, 2, 3])
def test_a_run_that_fails_by_itself_is_not_started_again(gcloud, code):
    done, calls = gcloud([*ARRIVES, [code, "", ""], described("ACTIVE")], "train", *TRAIN_FLAGS)
    assert done.returncode == code and f"cgan train ended with exit code {code}" in done.stderr
    assert calls == [*ARRIVED, "describe"]


SILENT = [1, "", "ERROR: (gcloud) Unable to reach the server"]


def test_what_fails_on_the_way_to_the_run_is_tried_again(gcloud):
    """gcloud ends with 1 where ssh is not ready yet, as `cgan train` does for an error of its code."""
    again = [described("ACTIVE"), described("ACTIVE"), described("ACTIVE"), FINE, FINE, FINE]
    done, calls = gcloud([*ARRIVES[:-2], [1, "", ""], described("ACTIVE"), *again], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr
    assert calls.count("scp") == 2 and calls.count("create") == 1


def test_a_question_without_an_answer_after_a_failed_run_is_asked_again(gcloud):
    again = [described("ACTIVE"), described("ACTIVE"), described("ACTIVE"), FINE, FINE, FINE]
    lost = [[255, "", "Connection closed"], SILENT, described("ACTIVE")]
    done, _ = gcloud([*ARRIVES, *lost, SILENT, *again], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr


def test_a_question_without_an_answer_is_asked_again_while_a_slice_is_waited_for(gcloud):
    arrives = [NOT_FOUND, NOT_FOUND, FINE, SILENT, described("CREATING"), SILENT, described("ACTIVE"), FINE, FINE]
    done, calls = gcloud([*arrives, FINE], "train", *TRAIN_FLAGS)
    assert done.returncode == 0, done.stderr
    assert "Unable to reach the server" in done.stderr and calls.count("create") == 1
    done, calls = gcloud([SILENT] * 5, "wait")
    assert done.returncode == 1 and len(calls) == len([*arrives, FINE]) + 5


def test_a_run_is_given_up_after_so_many_attempts(gcloud):
    stopped = [[75, "", ""], described("ACTIVE")]
    done, _ = gcloud([*ARRIVES, *stopped], "train", "--attempts=1", *TRAIN_FLAGS)
    assert done.returncode == 75 and "the same command goes on" in done.stderr


def test_what_does_not_carry_the_label_is_left_alone(gcloud):
    for label in ("", "someone-else"):
        done, calls = gcloud([described("ACTIVE", label)], "delete")
        assert done.returncode == 2 and "does not carry the label launched-by=cgan-jax" in done.stderr
        assert "delete" not in calls


def test_what_carries_the_label_is_deleted(gcloud):
    done, calls = gcloud([described("ACTIVE"), FINE], "delete")
    assert done.returncode == 0 and calls == ["describe", "delete"]


def test_what_gcloud_says_ends_the_script_in_one_line(gcloud):
    done, _ = gcloud([[1, "", "ERROR: (gcloud) PERMISSION_DENIED:\nlog in first"]], "create")
    assert done.returncode == 1 and "PERMISSION_DENIED: log in first" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "flags", "says"),
    [
        ("train", [], "needs the arguments of cgan train behind --"),
        ("fetch", [], "fetch needs --from=FOLDER"),
        ("delete", ["--name=a;b"], "--name is made of"),
        ("create", ["--accelerator=h200-8", "--dry_run"], "give its --runtime too"),
    ],
)
def test_wrong_use_of_tpu_vm(command, flags, says):
    done = tpu_vm(command, *flags)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(script):
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed; it comes with .[lint]")
    done = run(shellcheck, script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_can_be_read_and_started(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/usr/bin/env bash\n")


def test_no_hyper_parameters_are_written_down_here():
    for path in LAUNCH.iterdir():
        if path.suffix != ".md":
            words = path.read_text().split("--config.")[1:]
            assert not words, f"{path.name} overrides a recipe: {words}"


ECHO = """#!/usr/bin/env bash
printf '%s|' "$@" "$JAX_NUM_CPU_DEVICES" >"$STUB/$(grep -o 'process_id=.*' <<<"$*")"
exit "$(cat "$STUB/code_${*: -1}" 2>/dev/null || echo 0)"
"""


@pytest.mark.parametrize(
    ("codes", "code"), [({}, 0), ({0: 75, 1: 75}, 75), ({1: 75}, 75), ({0: 75, 1: 1}, 1), ({0: 3, 1: 75}, 3)]
)
def test_several_processes_are_told_their_places_and_their_codes_become_one(tmp_path, codes, code):
    python = executable(tmp_path / "python", ECHO)
    for process, ends in codes.items():
        (tmp_path / f"code_--process_id={process}").write_text(str(ends))
    arguments = ["--config=a b.py", TERMS]
    environment = {"PYTHON": str(python), "STUB": str(tmp_path), "PROCESSES": "2", "DEVICES": "3", "PORT": "29500"}
    done = run(LAUNCH / "local_multiprocess.sh", *arguments, **environment)
    assert done.returncode == code, done.stderr
    for process in (0, 1):
        place = ["--coordinator_address=127.0.0.1:29500", "--num_processes=2", f"--process_id={process}"]
        given = (tmp_path / f"process_id={process}").read_text().split("|")
        assert given == ["-m", "cgan_jax", "train", *arguments, *place, "3", ""]


SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$STUB/srun"
exit "$CODE"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >"$STUB/requeued"
"""


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (3, False), (75, True), (134, True)])
def test_slurm_puts_an_interrupted_job_back_into_the_queue(tmp_path, code, requeued):
    executable(tmp_path / "srun", SRUN)
    executable(tmp_path / "scontrol", SCONTROL)
    environment = {"STUB": str(tmp_path), "CODE": str(code), "SLURM_JOB_ID": "123"}
    done = run("bash", LAUNCH / "slurm.sbatch", *TRAIN, path=tmp_path, **environment)
    assert done.returncode == code
    assert (tmp_path / "srun").read_text().splitlines() == ["--kill-on-bad-exit=0", "cgan", "train", *TRAIN]
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 123\n"


def test_slurm_gives_up_in_the_end(tmp_path):
    executable(tmp_path / "srun", SRUN)
    executable(tmp_path / "scontrol", SCONTROL)
    environment = {"STUB": str(tmp_path), "CODE": "75", "SLURM_JOB_ID": "123", "SLURM_RESTART_COUNT": "20"}
    assert run("bash", LAUNCH / "slurm.sbatch", *TRAIN, path=tmp_path, **environment).returncode == 75
    assert not (tmp_path / "requeued").exists()


def test_slurm_is_asked_for_a_signal_in_time_and_for_requeueing():
    options = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)


def kubernetes(name: str) -> tuple[dict, dict, dict]:
    """(the job, its pod, its container) of a JobSet, after the fields that every one must have."""
    described = yaml.safe_load((LAUNCH / name).read_text())
    assert described["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and described["kind"] == "JobSet"
    assert described["spec"]["failurePolicy"]["maxRestarts"] > 0
    (rule,) = described["spec"]["failurePolicy"]["rules"]
    assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    (replicated,) = described["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] > 1 and job["completionMode"] == "Indexed"
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["values"] == [1, 2, 3]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert any(mount["mountPath"] == "/runs" for mount in container["volumeMounts"])
    assert container["args"][0] == "train" and "--workdir=/runs/digits" in container["args"]
    return job, pod, container


def test_pods_with_gpus_are_told_their_places():
    job, _, container = kubernetes("jobset_gpu.yaml")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    fields = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]}
    for index in range(job["completions"]):
        # As the two controllers annotate a pod, and the kubelet expands $(NAME).
        annotated = {
            "metadata.annotations['jobset.sigs.k8s.io/jobset-name']": "cgan",
            "metadata.annotations['batch.kubernetes.io/job-completion-index']": str(index),
        }
        text = "\n".join(container["args"][1:])
        for name, field in fields.items():
            text = text.replace(f"$({name})", annotated[field])
        flags = dict(argument.removeprefix("--").split("=", 1) for argument in text.splitlines())
        # JobSet's host names are JOBSET-JOB-INDEX-POD.JOBSET, the completion index being the pod's.
        assert flags["coordinator_address"] == "cgan-workers-0-0.cgan:8476"
        assert (flags["num_processes"], flags["process_id"]) == (str(job["completions"]), str(index))
    assert container["ports"] == [{"containerPort": 8476}]


def test_pods_with_tpus_fill_their_slice():
    job, pod, container = kubernetes("jobset_tpu.yaml")
    across, down = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert across * down == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"


def test_skypilot_starts_the_same_command_on_every_node(tmp_path):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75, 134, 137, 139]
    assert "file_mounts" not in task and "epath-gcs" in task["setup"]
    bin_folder = tmp_path / "cgan_venv" / "bin"
    bin_folder.mkdir(parents=True)
    executable(bin_folder / "cgan", "#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    given = {"HOME": str(tmp_path), "ARGUMENTS": "--config='a b.py' " + shlex.quote(TERMS)}
    given |= {
        "BUCKET": "b",
        "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
    }
    done = run("bash", "-c", task["run"], **given)
    place = ["--coordinator_address=10.0.0.7:8476", "--num_processes=2", "--process_id=1"]
    assert done.stdout.splitlines() == ["train", "--config=a b.py", TERMS, "--workdir=gs://b/run", *place], done.stderr
    assert task["num_nodes"] >= 1 and set(task["envs"]) == {"ARGUMENTS", "BUCKET", "EXTRA"}


def test_the_image_copies_what_is_there_and_installs_extras_that_exist():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [source for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for source in line.split()[:-1]]
    assert copied and all((ROOT / source).exists() for source in copied)
    extras = re.findall(
        r"^(\w+) =", (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1], re.MULTILINE
    )
    assert {"cuda", "tpu"} <= set(extras)
    case = re.search(r"cuda \| tpu\) pip install", text)
    assert case and 'ENTRYPOINT ["cgan"]' in text and "ARG EXTRA=cpu" in text
