"""The report of a served run: written once per change of its files, and with a policy that runs no foreign script."""

import os

import pytest

from cgan_jax.run import report, workdir
from cgan_jax.serving.story import Story, policy, state_of
from tests.browser import opened
from tests.conftest import small_recipe


@pytest.fixture
def run(tmp_path):
    workdir.write_info(tmp_path, workdir.RunInfo(small_recipe(), 1, ["cat", "dog"], 100))
    (tmp_path / "samples").mkdir()
    return tmp_path


def log(run, name=workdir.METRICS):
    workdir.append_metrics(run, {"step": 1, "kimg": 1.0, "seconds": 1.0, "train/d_loss": 1.0}, name)


def older(run):
    """The same bytes at another time."""
    os.utime(run / workdir.CONFIG, (1, 1))


CHANGES = {
    "a line of the log": log,
    "a line of the scores": lambda run: log(run, workdir.EVALUATIONS),
    "a line of the environments": lambda run: log(run, workdir.ENVIRONMENTS),
    "a rollback": lambda run: log(run, "rollbacks.jsonl"),
    "a picture": lambda run: (run / "samples" / "kimg_1.png").write_bytes(b"a"),
    "a time": older,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_written_anew_where_files_have_changed_and_not_otherwise(run, change):
    written = []
    story = Story(run, lambda: written.append(1) or f"<style>a</style><script>{len(written)}</script>")
    assert story.page() is story.page() and len(written) == 1
    first = story.page()
    change(run)
    assert b"<script>2" in story.page().content and story.page().policy != first.policy
    assert len(written) == 2


def test_a_run_that_is_being_trained_is_told_from_one_that_has_ended(run):
    before = state_of(run)
    with workdir.locked(run):
        assert state_of(run) != before
    assert state_of(run)[1] is False


def test_a_run_in_a_bucket_is_watched_too(remote):
    workdir.write_info(remote, workdir.RunInfo(small_recipe(), 1, ["cat", "dog"], 100))
    log(remote)
    before = state_of(remote)
    assert before == state_of(remote)
    log(remote)
    assert before != state_of(remote)


def test_a_report_runs_its_own_script_alone(run):
    log(run)
    found = Story(run, lambda: report.page([run])).page()
    assert found.policy.startswith("default-src 'none'; img-src data:; script-src 'sha256-")
    assert "unsafe" not in found.policy and "sandbox allow-scripts" in found.policy
    assert "frame-ancestors 'self'" in found.policy
    assert policy("<p>nothing") != found.policy and "script-src 'none'" in policy("<p>nothing")
    assert policy("<script>evil</script><script>own</script>") == policy("<script>own</script>")


@pytest.mark.slow  # a browser starts
def test_in_a_browser_the_policy_lets_the_report_draw_itself(run):
    """Under its header, which the file alone does not have."""
    import http.server
    import threading

    for _ in range(3):
        log(run)
    found = Story(run, lambda: report.page([run])).page()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Security-Policy", found.policy)
            self.end_headers()
            self.wfile.write(found.content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with opened(f"http://127.0.0.1:{server.server_port}/") as page:
            page.locator("svg").first.wait_for()
            assert page.evaluate("() => getComputedStyle(document.body).maxWidth") == "1180px"
        server.shutdown()
