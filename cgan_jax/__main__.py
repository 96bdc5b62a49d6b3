"""Runs `cgan COMMAND` or `python -m cgan_jax COMMAND`: finds commands/COMMAND.py, and reports wrong use in one line.

A command is a file with a docstring (the help text), `define_flags(flags, argv)` and `main(flags)`. If it has ARGUMENT,
that flag may be given without its name. This file parses the command line before it imports anything heavy.
"""

import contextlib
import os
import re
import sys
import textwrap
import traceback

from absl import flags as absl_flags

from cgan_jax import __version__, jax_environment
from cgan_jax.errors import GuardError, Interrupted, UsageError
from cgan_jax.heap import keep_freed_memory
from cgan_jax.lookup import module_named, names_in, unknown
from cgan_jax.names import printable

_COMMANDS = "cgan_jax.commands"
_BROKEN_PIPE = 141  # the exit code after SIGPIPE
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # XLA's errors begin with it
# Flags that name a file or a folder. Shells expand ~ in `--out ~/x.png`, and not in `--out=~/x.png`.
PATHS = (
    "archive",
    "classifier",
    "data_dir",
    "discriminator",
    "generator",
    "images",
    "inception_weights",
    "init_from",
    "json",
    "model",
    "out",
    "reference",
    "workdir",
)
IN_BUCKETS = ("data_dir", "discriminator", "generator", "init_from", "model", "workdir")
"""Those that may name a bucket."""


def run(argv: list[str]) -> int:
    """Runs the command line `argv` (without the program's name) and returns the exit code."""
    try:
        if not argv or argv[0] in ("--help", "-h", "help"):
            print(_overview())
            return 0 if argv else 2
        if argv[0] in ("--version", "-V"):
            print(f"cgan_jax {__version__}")
            return 0
        _run_command(argv[0], argv[1:])
        return 0
    except (UsageError, GuardError, Interrupted) as error:
        _tell(f"cgan: {'error: ' if not isinstance(error, Interrupted) else ''}{_one_line(error)}")
        return error.exit_code
    except KeyboardInterrupt:
        _tell("\ncgan: interrupted")
        return 130
    except BrokenPipeError:  # the reader of the output has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
        return _BROKEN_PIPE
    except OSError as error:  # a path that is too long, not allowed, or on a full disk
        _tell(f"cgan: error: {_one_line(error)}")
        return UsageError.exit_code
    except Exception as error:
        why = _out_of_memory(error) or jax_environment.trouble(error)
        if why is None:
            raise
        _tell(f"cgan: error: {why}")
        return UsageError.exit_code


def _run_command(name: str, argv: list[str]) -> None:
    commands = [command.replace("_", "-") for command in names_in(_COMMANDS)]
    if name not in commands:
        raise unknown("command", name, commands)
    command = module_named(_COMMANDS, name.replace("-", "_"), "command")
    flags, argv = absl_flags.FlagValues(), _recipe_first(argv)
    command.define_flags(flags, argv)
    if any(argument in ("--help", "-h", "-help") for argument in argv):
        print(_help(name, command.__doc__, flags))
        return
    try:
        rest = flags([name, *argv])[1:]
    except UsageError:
        raise
    except absl_flags.Error as error:
        if getattr(error, "flagname", "").startswith("config.") and "config" in flags:
            raise UsageError(f"--{error.flagname} changes a recipe; --config=NAME must be given too") from error
        raise UsageError(f"{error} (see cgan {name} --help)") from error
    except KeyError as error:
        hint = (
            "what loss and anneal.to do not list is given whole, as in --config.loss.g_terms.hinge=\"{'weight': 1.0}\""
            " or --config.anneal.to.ema=\"{'halflife_kimg': 500.0}\""
        )
        raise UsageError(f"the recipe has no key {error.args[0]}; {hint}") from error
    except Exception as error:  # a recipe may raise anything while it is loaded and overridden
        raise UsageError(f"--config cannot be used: {type(error).__name__}: {error}") from error
    argument = getattr(command, "ARGUMENT", None)
    if rest and argument and not flags[argument].present:
        flags[argument].parse(rest.pop(0))
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; values are given as --flag=value (see cgan {name} --help)")
    _settle_paths(flags)
    jax_environment.settle()
    keep_freed_memory()
    command.main(flags)


def _recipe_first(argv: list[str]) -> list[str]:
    """The words with --config in front: ml_collections knows the flags of its fields when it has read the recipe.

    Raises UsageError if it is given twice.
    """
    places = [i for i, word in enumerate(argv) if re.match("--?config(=|$)", word)]
    if len(places) > 1:
        raise UsageError("--config names one recipe, given twice")
    if not places:
        return argv
    start = places[0]
    end = start + (1 if "=" in argv[start] else 2)
    return [*argv[start:end], *argv[:start], *argv[end:]]


def _settle_paths(flags: absl_flags.FlagValues) -> None:
    """Expands ~.

    Raises UsageError for a bucket that no command reaches, and for a --workdir whose bytes cannot be decoded: orbax
    cannot write there.
    """
    for flag in (flags[name] for name in PATHS if name in flags):
        if not isinstance(flag.value, str | list):
            continue
        paths = [os.path.expanduser(path) for path in ([flag.value] if isinstance(flag.value, str) else flag.value)]
        flag.value = paths[0] if isinstance(flag.value, str) else paths
        given = f"--{flag.name}={','.join(paths)}"
        if flag.name not in IN_BUCKETS and any("://" in path for path in paths):
            raise UsageError(f"{given} must be on this machine; in a bucket may be: --{', --'.join(IN_BUCKETS)}")
        if flag.name == "workdir" and any(map(_has_surrogates, map(os.path.abspath, paths))):
            encoding = sys.getfilesystemencoding()
            hint = "" if encoding == "utf-8" else ", or set PYTHONUTF8=1"
            raise UsageError(f"{given}: a name that is not {encoding}; rename the folder{hint}")


def _has_surrogates(text: str) -> bool:
    """Whether a name has bytes that the system's encoding cannot read, which Python keeps as lone surrogates."""
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def _overview() -> str:
    lines = ["Train, sample and share class-conditional image GANs.", "", "usage: cgan COMMAND [--flag=value ...]", ""]
    for name in names_in(_COMMANDS):
        summary = (module_named(_COMMANDS, name, "command").__doc__ or "").split("\n")[0]
        lines.append(f"  {name.replace('_', '-'):<18}{summary}")
    return "\n".join([*lines, "", "cgan COMMAND --help explains a command and its flags; cgan -V says the version."])


def _help(name: str, text: str, flags: absl_flags.FlagValues) -> str:
    lines = [_wrapped(f"cgan {name}: {text.strip()}"), "", "flags:"]
    own = {flag for flags_of_module in flags.flags_by_module_dict().values() for flag in flags_of_module}
    for flag in sorted(own, key=lambda flag: flag.name):
        if flag.boolean:
            spelled = f"--no{flag.name}" if flag.default else f"--{flag.name}"
        else:
            spelled = f"--{flag.name}=..." + ("" if flag.default in (None, "") else f" [{flag.default}]")
        lines.append(f"  {spelled}\n{textwrap.indent(textwrap.fill(flag.help, 90), ' ' * 6)}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """The text at 100 columns. Examples, which are indented, keep their lines."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(one if one.startswith(" ") else textwrap.fill(one, 100) for one in paragraphs)


def _out_of_memory(error: Exception) -> str | None:
    if not isinstance(error, MemoryError) and _OUT_OF_MEMORY not in str(error):
        return None
    hint = "fewer images in a batch, narrower networks, or dataset.placement=stream take less"
    return f"more memory was needed than there is; {hint} ({_one_line(error)[:300]})"


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


def _tell(text: str) -> None:
    """Prints to stderr, unless it is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)


def _fill_closed_streams() -> None:
    """Puts /dev/null where the caller left no stream (`2>&-`): the next file would get its number, and XLA's messages.

    The number is the lowest that is free.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (until the process ends)


def main() -> None:
    """Runs the command line of this process: the console script.

    After an error it exits with os._exit: interpreter shutdown waits for other processes of the run and for running XLA
    work, and crashes (139).
    """
    _fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no run
    try:
        code = run(sys.argv[1:])
    except Exception:
        _tell(traceback.format_exc().rstrip())
        code = 1
    if code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
