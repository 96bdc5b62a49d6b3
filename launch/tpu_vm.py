#!/usr/bin/env python3
"""Trains on a TPU slice through Google's queued resources: create, wait, sync, run on all workers, fetch, delete.

    launch/tpu_vm.py train --name=gan --zone=us-central1-a --accelerator=v5litepod-8 --spot \\
        -- --config=configs/cifar10_cgan.py --workdir=runs/cifar
    launch/tpu_vm.py fetch --name=gan --zone=us-central1-a --from=cgan_jax/runs/cifar --to=runs
    launch/tpu_vm.py delete --name=gan --zone=us-central1-a

`train` does create, wait, sync and run, and repeats them after each preemption. It uses a slice that exists already.
create, wait, sync and run are also commands. Arguments after -- go to `cgan train` unchanged. --dry_run prints the
gcloud lines of a first attempt that succeeds, and runs none.

sync copies the last commit of this checkout (git archive). The script deletes only resources with its label. A slice of
several hosts needs a workdir that all of them see, such as gs://BUCKET/FOLDER. Needs only Python 3.11 and gcloud.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LABEL = ("launched-by", "cgan-jax")
INTERRUPTED = 75
# After a bug, wrong use, a guard or a second Ctrl-C, another attempt would end alike. Other codes, such as 255 of ssh,
# are worth one.
FINAL = (1, 2, 3, 130)
PATIENCE = 5  # attempts to read the state of a slice before the script gives up
ARCHIVE, CHECKOUT = "cgan_jax.tar.gz", "cgan_jax"
# A project's default network opens this port between workers, but not the one that jax would choose.
COORDINATOR_PORT = 8476
RUNTIMES = {"v4": "tpu-ubuntu2204-base", "v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5"}
RUNTIMES |= {"v6e": "v2-alpha-tpuv6e"}
COMING = ("CREATING", "ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES")
GONE = ("FAILED", "SUSPENDING", "SUSPENDED")


class Failure(Exception):
    """An error that ends the script with one line and an exit code."""

    def __init__(self, text: str, code: int = 1, is_of_run: bool = False):
        """`is_of_run`: `cgan train` itself ended so, not gcloud on the way to it."""
        super().__init__(text)
        self.code, self.is_of_run = code, is_of_run


class Slice:
    """One queued resource, the node of the same name, and the gcloud commands for them."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self._where = [f"--zone={options.zone}"] + ([f"--project={options.project}"] if options.project else [])

    def gcloud(self, *words: str) -> int:
        """Runs `gcloud compute tpus ...` and returns the exit code. The output goes to the terminal."""
        line = ["gcloud", "compute", "tpus", *words, *self._where]
        print(shlex.join(line) if self.options.dry_run else f"+ {shlex.join(line)}", flush=True)
        return 0 if self.options.dry_run else subprocess.run(line, check=False).returncode

    def must(self, *words: str) -> None:
        """Runs `gcloud compute tpus ...`. Raises Failure if it fails."""
        if code := self.gcloud(*words):
            raise Failure(f"gcloud compute tpus {words[0]} {words[1]} ended with exit code {code}", code)

    def describe(self) -> dict[str, Any] | None:
        """Google's description of the resource, or None if no resource has this name."""
        line = ["gcloud", "compute", "tpus", "queued-resources", "describe", self.options.name, "--format=json"]
        line += self._where
        if self.options.dry_run:
            print(shlex.join(line))
            return None
        done = subprocess.run(line, check=False, capture_output=True, text=True)
        if done.returncode:
            if "NOT_FOUND" in done.stderr:
                return None
            raise Failure(f"cannot ask for {self.options.name}: {' '.join(done.stderr.split())}")
        return json.loads(done.stdout)

    def state(self) -> str:
        """The state: ACTIVE, one of COMING or GONE, DELETING, or "" if there is no such resource."""
        found = self.describe()
        return "" if found is None else found.get("state", {}).get("state", "CREATING")

    def _state_with_retries(self) -> str:
        """`state`, after up to 5 attempts."""
        for _ in range(PATIENCE - 1):
            try:
                return self.state()
            except Failure as failure:
                print(failure, file=sys.stderr, flush=True)
                time.sleep(self.options.poll_seconds)
        return self.state()

    def create(self) -> None:
        """Requests the slice, unless the resource exists already."""
        state = self.state()
        if state and not self.options.dry_run:
            print(f"{self.options.name} exists: {state}", flush=True)
            return
        runtime = self.options.runtime or runtime_of(self.options.accelerator)
        tier = ["--spot"] if self.options.spot else []
        self.must(
            "queued-resources",
            "create",
            self.options.name,
            f"--node-id={self.options.name}",
            f"--accelerator-type={self.options.accelerator}",
            f"--runtime-version={runtime}",
            f"--labels={LABEL[0]}={LABEL[1]}",
            *tier,
        )

    def wait(self) -> None:
        """Waits until the slice is active. Raises Failure if it cannot become so, or not within --wait_hours."""
        deadline = time.monotonic() + 3600 * self.options.wait_hours
        told = ""
        while (state := self._state_with_retries()) != "ACTIVE" and not self.options.dry_run:
            if state not in COMING:
                raise Failure(f"{self.options.name} will not start: {state or 'there is no such resource'}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.options.name} is still {state} after {self.options.wait_hours:g} hours")
            if state != told:
                print(f"waiting for {self.options.name}: {state}", flush=True)
                told = state
            time.sleep(self.options.poll_seconds)

    def sync(self) -> None:
        """Copies the last commit of this checkout to every worker and installs it."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path("/tmp") / ARCHIVE if self.options.dry_run else Path(folder) / ARCHIVE
            line = ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]
            print(shlex.join(line) if self.options.dry_run else f"+ {shlex.join(line)}", flush=True)
            if not self.options.dry_run:
                subprocess.run(line, check=True)
            self.must("tpu-vm", "scp", str(archive), f"{self.options.name}:{ARCHIVE}", "--worker=all")
        # A run may outlive its connection and keep the workdir locked: ask it to save and exit.
        stop = 'for _ in $(seq 120); do pkill -TERM -f "[c]gan train" || break; sleep 1; done'
        # Keep runs/, which is not part of the checkout.
        clear = f"mkdir -p {CHECKOUT} && find {CHECKOUT} -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {{}} +"
        unpack = f"tar -xzf {ARCHIVE} -C {CHECKOUT} && bash {CHECKOUT}/launch/tpu_setup.sh"
        self.must(*self._on_all(f"{stop}; {clear} && {unpack}"))

    def run(self) -> int:
        """Runs `cgan train` in the checkout on all workers at once, and returns the exit code."""
        command = shlex.join(["../cgan_venv/bin/cgan", "train", *self.options.arguments])
        return self.gcloud(
            *self._on_all(f"cd {CHECKOUT} && exec env JAX_COORDINATOR_PORT={COORDINATOR_PORT} {command}")
        )

    def fetch(self) -> None:
        """Copies a folder of the first worker to this machine."""
        source = f"{self.options.name}:{self.options.source}"
        self.must("tpu-vm", "scp", "--recurse", source, self.options.to, "--worker=0")

    def delete(self) -> None:
        """Deletes the resource and its node. Raises Failure if they do not carry this script's label."""
        found = self.describe()
        if found is None and not self.options.dry_run:
            print(f"{self.options.name} does not exist", flush=True)
            return
        if found is not None and not carries_label(found):
            raise Failure(f"{self.options.name} does not carry the label {'='.join(LABEL)} and is left alone", 2)
        self.must("queued-resources", "delete", self.options.name, "--force", "--quiet")

    def train(self) -> None:
        """Creates, waits, syncs and runs until `cgan train` has finished; starts over after each preemption."""
        for attempt in range(1, self.options.attempts + 1):
            if self._state_with_retries() in (*GONE, "DELETING"):
                self._replace()
            self.create()
            failure = self._attempt()
            if failure is None:
                return
            state = self._state_with_retries()
            if state not in GONE and failure.is_of_run and failure.code in FINAL:
                raise failure
            where = f"the slice is {state}" if state else "the slice does not exist"
            print(f"attempt {attempt} of {self.options.attempts}: {failure}; {where}", flush=True)
            time.sleep(self.options.poll_seconds)
        raise Failure(f"interrupted {self.options.attempts} times; the same command goes on", INTERRUPTED)

    def _attempt(self) -> Failure | None:
        """Trains on the requested slice. Returns the failure, or None."""
        try:
            self.wait()
            self.sync()
        except Failure as failure:
            return failure
        code = self.run()
        return Failure(f"cgan train ended with exit code {code}", code, is_of_run=True) if code else None

    def _replace(self) -> None:
        """Deletes a preempted slice and waits until the name is free."""
        self.delete()
        while self._state_with_retries():
            time.sleep(self.options.poll_seconds)

    def _on_all(self, command: str) -> list[str]:
        return ["tpu-vm", "ssh", self.options.name, "--worker=all", f"--command={command}"]


def carries_label(found: dict[str, Any]) -> bool:
    """Whether all nodes of a queued resource have this script's label."""
    nodes = [spec.get("node", {}) for spec in found.get("tpu", {}).get("nodeSpec", [])]
    return bool(nodes) and all(node.get("labels", {}).get(LABEL[0]) == LABEL[1] for node in nodes)


def runtime_of(accelerator: str) -> str:
    """The TPU VM image for a kind of slice. Raises Failure if the kind is unknown."""
    kind = accelerator.partition("-")[0]
    if kind not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise Failure(f"--accelerator={accelerator}: give its --runtime too; only {known} have a default", 2)
    return RUNTIMES[kind]


def parse(argv: list[str]) -> argparse.Namespace:
    """The parsed command line; `arguments` holds the words after --."""
    own, arguments = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=("train", "create", "wait", "sync", "run", "fetch", "delete"))
    parser.add_argument("--name", required=True, help="name of the queued resource and its node")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", default="", help="default: gcloud's project")
    parser.add_argument("--accelerator", default="v5litepod-8", help="such as v4-8, v5litepod-8, v5p-8, v6e-8")
    parser.add_argument("--runtime", default="", help="image of the VM; default for the accelerators above")
    parser.add_argument("--spot", action="store_true", help="a slice that may be preempted")
    parser.add_argument("--attempts", type=int, default=20, help="of train; each preemption costs one")
    parser.add_argument("--wait_hours", type=float, default=24.0, help="how long to wait for a slice")
    parser.add_argument("--poll_seconds", type=float, default=30.0)
    parser.add_argument("--from", dest="source", default="", help="for fetch: a folder on the first worker")
    parser.add_argument("--to", default=".", help="for fetch: a folder on this machine")
    parser.add_argument("--dry_run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(own)
    for name in ("name", "zone"):
        if not re.fullmatch(r"[a-z][a-z0-9-]*", getattr(options, name)):
            parser.error(f"--{name} is made of a-z, 0-9 and -, given {getattr(options, name)!r}")
    if options.command == "fetch" and not options.source:
        parser.error("fetch needs --from=FOLDER")
    if options.command in ("train", "run") and not arguments:
        parser.error(f"{options.command} needs the arguments of cgan train behind --")
    options.arguments = arguments
    return options


def main(argv: list[str]) -> int:
    """Runs a command line and returns the exit code."""
    options = parse(argv)
    tpu = Slice(options)
    try:
        if options.command == "run":
            return tpu.run()
        getattr(tpu, options.command)()
    except Failure as failure:
        print(f"tpu_vm: {failure}", file=sys.stderr)
        return failure.code
    except FileNotFoundError as error:
        print(f"tpu_vm: {error.filename} is not installed", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
