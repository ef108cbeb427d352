"""`genie backup`: a consistent copy of stores, spool and models, taken while the server runs."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import click

from server.cli.data import CONSOLE, data_settings, fail, place_options, print_json, told
from server.data_rows import time_text
from server.experiments.spool import SPOOL, copy_spool
from server.models import MODELS
from store.backup import Manifest, backup
from store.home import check_restored
from store.lmdb_store import LmdbStore
from store.stores import EXPERIMENTS, SERVING, STATE, open_stores


@click.command(name="backup")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@place_options
def command(directory: Path, data_directory: str | None, config_file: Path | None, as_json: bool) -> None:
    """Copy stores and models, of all tenants, to a new or empty DIRECTORY while they are in use.

    Experiments and what is on its way to them are taken along, when they are in this data directory. DIRECTORY appears
    under its name when the copy is complete; its manifest holds the checksum of every file.
    """
    settings = data_settings(config_file, data_directory)
    with told(), ExitStack() as held, CONSOLE.status("copying"):
        manifest = backup(
            _parts(settings.data_directory, held),
            directory,
            genie_version=version("genie-server"),
            created_at=time_text(time.time()),
        )
    tell(manifest, directory, as_json=as_json, done="copied to")


def _parts(place: Path, held: ExitStack) -> dict[str, Callable[[Path], object]]:
    """What there is to copy.

    State comes first: an answer in it has been reported to experiments, so its report is in the spool that is copied
    next or, delivered by then, in the service's store that is copied last. What is in both counts once, by its id.
    """
    parts: dict[str, Callable[[Path], object]] = {}
    check_restored(place / STATE)
    if (place / STATE).exists():
        stores = open_stores(place)
        held.callback(stores.close)
        parts = {STATE: stores.state.backup, SERVING: stores.serving.backup}
    if (place / SPOOL).is_dir():
        parts[SPOOL] = partial(copy_spool, place / SPOOL)
    if (place / EXPERIMENTS).exists():
        experiments = LmdbStore(place / EXPERIMENTS)
        held.callback(experiments.close)
        parts[EXPERIMENTS] = experiments.backup
    if STATE not in parts and EXPERIMENTS not in parts:
        fail(f"there is no store in {place}; start the server, import data, or name another directory")
    if (place / MODELS).is_dir():
        parts[MODELS] = partial(shutil.copytree, place / MODELS, symlinks=True)
    return parts


def tell(manifest: Manifest, directory: Path, *, as_json: bool, done: str) -> None:
    """Say what a backup holds."""
    if as_json:
        print_json({"directory": str(directory), "bytes": manifest.size_bytes, "manifest": manifest})
    else:
        files = len(manifest.files)
        click.echo(f"{files} files, {manifest.size_bytes / 1e6:,.1f} MB, {done} {directory}")
