"""Write what there is to know of a run, or of several side by side, as one HTML file for a browser.

    cgan report --workdir=runs/cifar
    cgan report --workdir=runs/a,runs/b --out=comparison.html

Curves that answer to the pointer, a slider through the pictures of training, the scores by class, the recipe, the
environment and the command. The file holds all of it and asks nothing of any network. A run that still trains, or that
crashed, has a report too. Without --out the file is report.html in the (first) run's folder, which each call renews.
"""

from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.commands import _flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_list("workdir", [], "The folder of a run, or several, separated by commas.", flag_values=flags)
    absl_flags.DEFINE_string("out", None, "FILE.html; left out: report.html in the first run.", flag_values=flags)
    _flags.define(flags, force="Replace the file that --out names.")


def main(flags: absl_flags.FlagValues) -> None:
    workdirs = [storage.place(name) for name in dict.fromkeys(flags.workdir)]
    _flags.need("report", {"--workdir=FOLDER[,FOLDER...]": workdirs and all(flags.workdir)})
    out = Path(flags.out) if flags.out else workdirs[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out={out}: the name of a report ends in .html")
    if flags.out and out.exists() and not flags.force:
        raise UsageError(f"{out} exists; --force replaces it")

    from cgan_jax.run import report

    text = report.page(workdirs)
    storage.make_folder(out.parent)
    storage.write_whole(out, text)
    print(f"wrote {out}, {len(text) / 1e6:.1f} MB")
