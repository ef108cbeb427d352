"""The `genie` command line: finds a command's module when it is asked for. Holds no command itself."""

import importlib
from pathlib import Path

import click

_COMMANDS = {
    "serve": "Run the server.",
    "experiments": "Run the experiment service by itself.",
    "experiment": "Create, start, stop, watch and report experiments.",
    "import": "Read a catalogue, learners or answers from files.",
    "export": "Write what is stored to files.",
    "report": "Write reports on learners as JSONL and a page.",
    "train": "Learn models from the answers.",
    "evaluate": "Measure predictions on held-out answers.",
    "policy-value": "Estimate what another policy would have earned.",
    "recommend": "Ask a server what a learner should do next.",
    "top": "Watch how a running server fares.",
    "explain": "Ask a server why it recommended something.",
    "backup": "Copy a store while it is in use.",
    "restore": "Put a backup in place of a store.",
    "replay": "Rebuild learner records from the answers.",
    "doctor": "Check settings, store, model and versions.",
    "demo": "Try it all on a bundled curriculum and classroom.",
}
"""Commands in the order of the help, with their one line; each is `command` of its own module in this package."""
_HIDDEN = frozenset({"metrics", "worker"})


def _module(name: str) -> str:
    # `import` is a keyword: its module is import_.py.
    return "import_" if name == "import" else name.replace("-", "_")


class _Program(click.Group):
    """Loads a command only to run it, so that help and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands that are there."""
        here = Path(__file__).parent
        return [name for name in _COMMANDS if (here / f"{_module(name)}.py").exists()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's module, imported now; None for an unknown name."""
        if cmd_name not in _HIDDEN and cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"server.cli.{_module(cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table above, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="genie-server", prog_name="genie")
def program() -> None:
    """Genie answers one question for a learning platform: what should this learner practise next, and why?"""
