"""The command line: `guide-hub COMMAND`. Each command is a module here, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from guide_hub.version import __version__

COMMANDS = {
    "erase": "Take the people of a request out of a model.",
    "rebuild": "Make an erased model anew without one erasure.",
    "check": "Check a request and its photos.",
    "invert": "How well a model shows a request's people.",
    "push": "Push a finished output folder in one commit.",
    "verify": "Check a model's hashes, record and card.",
    "audit": "Find what a repository still serves of erased people.",
    "purge": "Remove what an audit finds; only with --yes.",
    "convert": "Turn an official EG3D pickle into safetensors, running none of its code.",
    "evaluate": "GUIDE's ID, FID and KID of an erased model.",
    "render": "Pictures from a model.",
    "recipes": "List, show and copy the recipes.",
    "doctor": "What is missing here: weights, token, device.",
}
EXIT_CODES = """Exit codes: 0 done or nothing left to do; 1 unexpected; 2 usage, request, recipe or photo; 3
the answer is no (target not met, no match, a check failed); 4 Hub, token or network; 5 somebody pushed since;
130 interrupted; 143 terminated."""


class Lazy(click.Group):
    """Knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"guide_hub.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="guide-hub")
def cli() -> None:
    """Take a person out of a face generator on the Hugging Face Hub."""


def let_threads_sleep() -> None:
    """Before torch: its threads wait a little for the next operation, then sleep and leave the cores to
    others. Without an end to it two runs on the same cores take ten times as long. On two cores a step of
    `heads-fast` takes 0.76 s with no wait, 0.66 with this one and 0.60 with five times as much; in each of
    two runs at once 0.99, 1.10 and 1.48. It is for GNU's OpenMP, as PyTorch has it on Linux."""
    if os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE").upper() == "PASSIVE":
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def main() -> None:
    """Runs the command line; errors become lines on stderr, an exit code and, with --json, an object."""
    let_threads_sleep()
    from guide_hub.cli import output

    words = sys.argv[1:]
    try:
        try:
            cli(standalone_mode=False)
        except SystemExit:
            raise
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)
        except BaseException as error:  # the one place where errors turn into exit codes
            if isinstance(error, BrokenPipeError):
                raise
            resumable = words[:1] in (["erase"], ["rebuild"])
            sys.exit(output.explain(error, as_json="--json" in words, resumable=resumable))
    except BrokenPipeError:  # whoever read stdout has enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
