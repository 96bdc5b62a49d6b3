"""Progress: lines in a pipe or file, a bar on a terminal."""

import errno
import io
import os
import sys
import time

import pytest

from cgan_jax.run import progress

SCALARS = {"time/images_per_sec": 500.0, "train/d_loss": 1.23456, "train/g_loss": 0.7}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (75.3, "1m15s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m"),
        (3660, "1h01m"),
        (90000, "25h00m"),
    ],
)
def test_a_duration_is_short_and_carries_over(seconds, text):
    assert progress.duration(seconds) == text


def test_a_line_says_how_far_how_fast_and_how_long(capsys):
    shown = progress.TrainingProgress(0.0, 30.0, images_per_epoch=2000)
    shown.report(80, 5.0, SCALARS)
    # 5,000 of 2,000 images an epoch; 25,000 images left at 500 a second.
    expected = "kimg 5.0/30.0  step 80  epoch 2.50  d_loss 1.235  g_loss 0.700  500 images/s  50s left\n"
    assert capsys.readouterr().out == expected


def test_no_time_is_left_after_the_end(capsys):
    progress.TrainingProgress(0.0, 30.0, 2000).report(500, 30.01, SCALARS)
    assert capsys.readouterr().out.endswith("  0s left\n")


def test_the_time_left_is_at_most_the_limit(capsys):
    shown = progress.TrainingProgress(0.0, 30.0, 2000)
    for limit, left in ((20.0, "20s"), (80.0, "50s"), (-3.0, "0s")):
        shown.report(80, 5.0, SCALARS, limit)
        assert capsys.readouterr().out.endswith(f"  {left} left\n")


def test_the_clock_includes_the_time_since_the_last_lap(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    clock = progress.Clock([{"seconds": 60.0, "time/maintenance_seconds": 5.0}], 1.0)
    now[0] = 107.0
    assert (clock.total, clock.seconds) == (67.0, 60.0)
    with clock.maintenance():
        now[0] = 110.0
    now[0] = 111.0
    assert clock.total == 68.0
    clock.lap(2.0)
    assert clock.total == clock.seconds == 68.0


@pytest.mark.parametrize("share", [1.0, 0.97, 0.0])
def test_the_speed_is_that_of_the_calls_whether_or_not_their_dispatch_holds_the_host(monkeypatch, share):
    """Calls of 1 s and 1 kimg, whose dispatch holds the host for a share of that.

    Numbers are read one call later, except before maintenance after every third call. The first call compiles and
    blocks.
    """
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    clock, free, speeds = progress.Clock((), 0.0), 0.0, []
    clock.sent(1.0, 60.0)
    clock.start(1.0)
    pending = [(1.0, 0.0)]

    def read(kimg, ends):
        waited = max(0.0, ends - now[0]) + 1e-4
        now[0] += waited
        clock.came(kimg, waited)
        speeds.append(clock.lap(kimg).get("time/images_per_sec"))

    for kimg in range(2, 13):
        began, free = now[0], max(free, now[0]) + 1.0  # when the device has ended this call
        now[0] = max(began + 2e-4, free - 1 + share if share else 0.0)
        clock.sent(kimg, now[0] - began)
        for one in pending:
            read(*one)
        pending = [(kimg, free)]
        if kimg % 3 == 0:
            read(*pending.pop())
            with clock.maintenance():
                now[0] += 100.0
    told = [speed for speed in speeds if speed is not None]
    assert len(told) >= 7 and told == pytest.approx([1000.0] * len(told), rel=0.05), speeds
    assert clock.seconds == pytest.approx(11.0, rel=0.01)


def test_lines_are_printed_and_advancing_is_silent(capsys):
    shown = progress.TrainingProgress(0.0, 30.0, 2000)
    shown.advance(1, 2.0)
    shown.say("resuming")
    shown.close()
    assert capsys.readouterr() == ("resuming\n", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(io.StringIO):
    """A pipe whose reader has left, or a terminal that was closed."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, _):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.EIO, "gone")], ids=str)
@pytest.mark.parametrize("stderr", [Terminal, io.StringIO], ids=["bar", "no bar"])
def test_a_closed_output_does_not_end_a_run(error, stderr, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr())
    shown = progress.TrainingProgress(0.0, 30.0, 2000)
    for _ in range(2):
        monkeypatch.setattr(sys, "stdout", Gone(error))
        shown.say("evaluated")
        assert sys.stdout.name == os.devnull
    shown.close()


def test_on_a_terminal_a_bar_starts_where_the_run_resumes_and_ends_at_its_length(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = progress.TrainingProgress(10.0, 40.0, 2000)
    shown.report(80, 20.0, SCALARS)
    shown.advance(160, 41.0)
    shown.close()
    text = terminal.getvalue()
    assert "25%" in text and "10.0/40.0 kimg" in text
    assert "20.0/40.0 kimg, 500 images/s, 40s left, D 1.23, G 0.7" in text
    assert "100%" in text and "40.0/40.0 kimg, 500 images/s, 0s left" in text, "renewed after every call"
    assert capsys.readouterr().out == ""


def test_on_80_columns_the_speed_and_the_time_left_are_shown(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    shown = progress.TrainingProgress(0.0, 32000.0, 50000)
    shown.report(80, 1234.5, {**SCALARS, "time/images_per_sec": 10123.0})
    shown.close()
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    assert all(len(line) <= 80 for line in lines)
    assert any("1234.5/32000.0 kimg, 10123 images/s, 50m39s left, D 1.23" in line for line in lines)


def test_speed_is_told_without_the_first_batch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def batches():
        for seconds in (60.0, 1.0, 1.0):  # the first compiles
            now[0] += seconds
            yield range(10)

    speed = progress.Speed()
    assert len(list(speed.of(batches()))) == 3 and str(speed) == " (10 images/s)"
    short = progress.Speed()
    assert list(short.of([range(5)])) == [range(5)] and str(short) == ""


def test_what_takes_long_is_told_with_its_time(capsys):
    with progress.telling("compiling", first=0.01, every=60.0):
        time.sleep(0.3)
    assert capsys.readouterr().err == "compiling: 0s so far\n"
    with progress.telling("reading", first=60.0):
        pass
    assert capsys.readouterr().err == ""


def test_images_are_counted_in_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress._Lines, "every", 0.0)
    with progress.counting(4000, "features") as bar:
        bar.update(1000)
    assert capsys.readouterr().err.startswith("features: 1,000 of 4,000 images in 0s, ")
