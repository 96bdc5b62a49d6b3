"""Print what makes a shell complete commands, flags and recipes.

    source <(cgan completion bash)                                        # in ~/.bashrc
    source <(cgan completion zsh)                                         # in ~/.zshrc, after compinit
    cgan completion fish > ~/.config/fish/completions/cgan.fish

The shell is bash, zsh or fish. The text holds the commands, flags and recipes of this version.
"""

from absl import flags as absl_flags

from cgan_jax import recipe_files
from cgan_jax.errors import UsageError
from cgan_jax.lookup import module_named, names_in, unknown

ARGUMENT = "shell"
_COMMANDS = "cgan_jax.commands"


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("shell", None, "bash, zsh or fish; cgan completion SHELL is the same.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    shells = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if flags.shell is None:
        raise UsageError("cgan completion takes a shell: bash, zsh or fish")
    if flags.shell not in shells:
        raise unknown("shell", flags.shell, shells)
    print(shells[flags.shell](_commands(), recipe_files.names()))


def _commands() -> dict[str, tuple[str, list[str]]]:
    """{command: (its first line, its flags as they are typed)}."""
    found = {}
    for name in names_in(_COMMANDS):
        command = module_named(_COMMANDS, name, "command")
        flags = absl_flags.FlagValues()
        command.define_flags(flags, [])
        own = {flag for flags_of_module in flags.flags_by_module_dict().values() for flag in flags_of_module}
        typed = [_spelled(flag) for flag in sorted(own, key=lambda flag: flag.name)]
        found[name.replace("_", "-")] = (command.__doc__.split("\n")[0], [*typed, "--help"])
    return found


def _spelled(flag: absl_flags.Flag) -> str:
    if flag.boolean:
        return f"--no{flag.name}" if flag.default else f"--{flag.name}"
    return f"--{flag.name}="


def _bash(commands: dict[str, tuple[str, list[str]]], recipes: list[str]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(flags)}" ;;' for name, (_, flags) in commands.items())
    # bash splits a word at =: --config=di is "--config", "=" and "di".
    return f"""_cgan() {{
  local words current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} name
  if [[ $current == = ]]; then name=$before current=
  elif [[ $before == = ]]; then name=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  if [[ $COMP_CWORD == 1 ]]; then words="{" ".join(commands)}"
  elif [[ $name == --config || ${{COMP_WORDS[1]}} == recipes && $current != -* ]]; then words="{" ".join(recipes)}"
  elif [[ -n $name ]]; then compopt -o default; return
  else case ${{COMP_WORDS[1]}} in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -F _cgan cgan"""


def _zsh(commands: dict[str, tuple[str, list[str]]], recipes: list[str]) -> str:
    described = "\n".join(f"    '{name}:{_quoted(about)}'" for name, (about, _) in commands.items())
    cases = "\n".join(f"    {name}) compadd -S '' -- {' '.join(flags)} ;;" for name, (_, flags) in commands.items())
    return f"""_cgan() {{
  local -a commands=(
{described}
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  if compset -P '--config='; then compadd -- {" ".join(recipes)}; return; fi
  if compset -P '--*='; then _files; return; fi
  if [[ $words[2] == recipes && $PREFIX != -* ]]; then compadd -- {" ".join(recipes)}; return; fi
  case $words[2] in
{cases}
  esac
}}
compdef _cgan cgan"""


def _fish(commands: dict[str, tuple[str, list[str]]], recipes: list[str]) -> str:
    lines = ["complete -c cgan -f"]
    for name, (about, flags) in commands.items():
        lines.append(f"complete -c cgan -n __fish_use_subcommand -a {name} -d '{_quoted(about)}'")
        for flag in flags:
            long = flag.removeprefix("--").removesuffix("=")
            values = f" -x -a '{' '.join(recipes)}'" if flag == "--config=" else " -r -F" if flag.endswith("=") else ""
            lines.append(f"complete -c cgan -n '__fish_seen_subcommand_from {name}' -l {long}{values}")
    lines.append(f"complete -c cgan -n '__fish_seen_subcommand_from recipes' -a '{' '.join(recipes)}'")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace("'", "").replace(":", "")
