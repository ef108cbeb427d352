"""`genie restore`: a backup in place of stores and models that nobody uses."""

from pathlib import Path

import click

from server.cli.backup import tell
from server.cli.data import CONSOLE, data_settings, place_options, told
from store.backup import restore, verify


@click.command(name="restore")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace what the data directory holds.")
@click.option("--verify", "only_verify", is_flag=True, help="Check the backup and change nothing.")
@place_options
def command(
    directory: Path,
    force: bool,
    only_verify: bool,
    data_directory: str | None,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Put the backup in DIRECTORY in place of the data directory. The server must be stopped.

    Every file is checked before anything is replaced.
    """
    settings = data_settings(config_file, data_directory)
    with told(), CONSOLE.status("checking"):
        if only_verify:
            tell(verify(directory), directory, as_json=as_json, done="whole, in")
        else:
            manifest = restore(directory, settings.data_directory, force=force)
            tell(manifest, settings.data_directory, as_json=as_json, done="put in place in")
