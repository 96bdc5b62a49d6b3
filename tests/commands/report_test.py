"""`cgan report`: where it writes, and what it refuses."""

import pytest

from tests.command_line import cgan
from tests.run.report_test import write_run


def test_without_out_the_report_lies_in_the_run_and_is_renewed(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert cgan("report", f"--workdir={run}") == 0 == cgan("report", f"--workdir={run}")
    assert capsys.readouterr().out.startswith(f"wrote {run}/report.html, 0.0 MB\n")
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_a_file_that_is_named_is_replaced_only_by_force(tmp_path, capsys):
    write_run(tmp_path / "run")
    out = tmp_path / "folder" / "report.html"
    command = ["report", f"--workdir={tmp_path}/run,{tmp_path}/run", f"--out={out}"]
    assert cgan(*command) == 0
    out.write_text("mine")
    assert cgan(*command) == 2
    assert "--force replaces it" in capsys.readouterr().err and out.read_text() == "mine"
    assert cgan(*command, "--force") == 0 and out.read_text() != "mine"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--workdir=FOLDER"),
        (["--workdir={tmp}"], "holds no run"),
        (["--workdir={tmp}/run,"], "--workdir=FOLDER"),
        (["--workdir={tmp}/run", "--out={tmp}/report.pdf"], "ends in .html"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(tmp_path, capsys, arguments, message):
    write_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    assert cgan("report", *(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
