"""``glooctl completion``: a completion script for the shell, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add_parser(commands: Any) -> None:
    help_text = "Print a completion script: source <(glooctl completion bash)"
    parser = commands.add_parser("completion", help=help_text, description=help_text)
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from glooctl.app import build_parser

    words = dict(paths(build_parser(), ""))
    print({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](words))
    return 0


def paths(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    """Each command path with the words that may follow it: sub-commands and long flags."""
    nested: dict[str, argparse.ArgumentParser] = {}
    options: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            shown = {choice.dest: action.choices[choice.dest] for choice in action._choices_actions}
            nested.update(shown)
        options += [flag for flag in action.option_strings if flag.startswith("--")]
    yield path, [*nested, *sorted(options)]
    for word, child in nested.items():
        yield from paths(child, f"{path} {word}".strip())


def bash(words: dict[str, list[str]]) -> str:
    cases = "\n".join(f'    "{path}") words="{" ".join(following)}" ;;' for path, following in words.items())
    return f"""_glooctl() {{
  local word path="" words="" next
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in -*) continue ;; esac
    next="${{path:+$path }}$word"
    case "$next" in {"|".join(f'"{path}"' for path in words if path)}) path="$next" ;; esac
  done
  case "$path" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _glooctl glooctl"""


def zsh(words: dict[str, list[str]]) -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + bash(words)


def fish(words: dict[str, list[str]]) -> str:
    lines = ["complete -c glooctl -f"]
    for path, following in words.items():
        seen = " ".join(f"__fish_seen_subcommand_from {word};" for word in path.split())
        condition = "and ".join(seen.split("; ")).rstrip(";") if path else "__fish_use_subcommand"
        for word in following:
            flag = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c glooctl -n '{condition}' {flag}")
    return "\n".join(lines)
