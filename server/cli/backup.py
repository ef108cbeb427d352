"""`genie backup`: a consistent copy of stores and models, taken while the server runs."""

import time
from importlib.metadata import version
from pathlib import Path

import click

from server.cli.data import CONSOLE, data_settings, opened, place_options, print_json
from server.data_rows import time_text
from store.backup import Manifest, backup


@click.command(name="backup")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@place_options
def command(directory: Path, data_directory: str | None, config_file: Path | None, as_json: bool) -> None:
    """Copy stores and models, of all tenants, to a new or empty DIRECTORY while they are in use.

    DIRECTORY appears under its name when the copy is complete; its manifest holds the checksum of every file.
    """
    settings = data_settings(config_file, data_directory)
    models = settings.data_directory / "models"
    with opened(settings) as stores, CONSOLE.status("copying"):
        manifest = backup(
            stores,
            directory,
            genie_version=version("genie-server"),
            created_at=time_text(time.time()),
            also={"models": models} if models.is_dir() else {},
        )
    tell(manifest, directory, as_json=as_json, done="copied to")


def tell(manifest: Manifest, directory: Path, *, as_json: bool, done: str) -> None:
    """Say what a backup holds."""
    if as_json:
        print_json({"directory": str(directory), "bytes": manifest.size_bytes, "manifest": manifest})
    else:
        files = len(manifest.files)
        click.echo(f"{files} files, {manifest.size_bytes / 1e6:,.1f} MB, {done} {directory}")
