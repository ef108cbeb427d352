"""What `genie doctor` sees in the stores. Looks from a process apart, which a damaged file may end. Changes nothing."""

import errno
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from server.cli.finding import FULL_SHARE, OK, PROBLEM, WARNING, Finding
from server.config import Settings
from store.api import (
    Partition,
    Store,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
)
from store.catalogs import read_counts

_RESTORE = "restore a backup: `genie restore`"
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}


def stored(settings: Settings, *, recount: bool) -> Iterator[Finding]:
    """What is in the server's two stores."""
    if settings.store == "memory":
        yield Finding(
            "store", WARNING, "in memory: forgotten when the server stops", "set store to lmdb to keep it"
        )
        return
    from store.stores import SERVING, STATE

    look = partial(_tenants, settings=settings, recount=recount)
    yield from looked_into("store", settings.data_directory / STATE, look)
    yield from _serving(settings.data_directory / SERVING)


def looked_into(about: str, directory: Path, look: Callable[[Store], Iterator[Finding]]) -> Iterator[Finding]:
    """What `look` finds in a store that can be opened and written, else why it cannot."""
    from server.cli.apart import apart
    from store.home import is_new

    try:
        if is_new(directory):
            yield Finding(about, OK, "not there yet; the first start creates it")
            return
        yield from apart(_found, about, directory, look)
    except StoreError as error:
        yield Finding(about, PROBLEM, str(error), _advice(error))


def _serving(directory: Path) -> Iterator[Finding]:
    """What is in the store of shown recommendations, which may be lost: what is wrong with its data is no problem."""
    from store.home import is_vouched_for

    about, anew = "serving store", "the next start begins it anew, without the recommendations shown before"
    try:
        if not is_vouched_for(directory):
            yield Finding(about, WARNING, "nothing says that its file is whole", anew)
            return
    except StoreError as error:
        yield Finding(about, PROBLEM, str(error), _advice(error))
        return
    for finding in looked_into(about, directory, _nothing):
        yield finding._replace(state=WARNING, advice=anew) if finding.advice == _RESTORE else finding


def _found(about: str, directory: Path, look: Callable[[Store], Iterator[Finding]]) -> list[Finding]:
    """All of it, by the process that may be ended. Also `serving` is opened as if it were not to be lost."""
    from store.lmdb_store import LmdbStore

    found: list[Finding] = []
    try:
        store = LmdbStore(directory)
    except StoreError as error:
        return [Finding(about, PROBLEM, str(error), _advice(error))]
    try:
        store.check_writable()
        found.append(_room(about, store))
        found += look(store)
    except StoreError as error:
        found.append(Finding(about, PROBLEM, str(error), _advice(error)))
    finally:
        store.close()
    return found


def _advice(error: StoreError) -> str:
    """What to do about a store that cannot be used."""
    cause = error.__cause__
    code = getattr(cause, "code", None) or getattr(cause, "errno", None)
    if isinstance(error, StoreCorrupt):
        return _RESTORE
    if isinstance(error, StoreTooNew):
        return "use a newer Genie, or another data_directory"
    if isinstance(error, StoreFull):
        return "make room; nothing can be recorded now"
    if code in _NOT_ALLOWED:
        return "let this user write there: owner and mode of the files, and how the disk is mounted"
    if code == errno.ENOMEM:
        return "give it more memory or address space (`ulimit -v`)"
    return "see docs/operations.md, and look at the disk; nothing can be recorded now"


def _nothing(store: Store) -> Iterator[Finding]:
    return iter(())


def _room(about: str, store: Store) -> Finding:
    found = store.statistics()
    used, most = found.used_bytes, found.max_bytes
    seen = (
        f"{found.entries} entries, {used / 2**20:.1f} MiB of at most {most / 2**30:.0f} GiB, can be written"
    )
    if used > FULL_SHARE * most:
        return Finding(about, WARNING, seen, "it is nearly full: raise its limit or erase learners")
    return Finding(about, OK, seen)


def running(store: Store) -> Iterator[Finding]:
    """How many experiments there are, by tenant."""
    from store.experiments import RUNNING, list_experiments

    for tenant in store.tenants():
        states = [record.state for record in list_experiments(store, tenant)]
        yield Finding(
            f"experiments of {tenant}", OK, f"{len(states)}, of which {states.count(RUNNING)} running"
        )


def _tenants(store: Store, settings: Settings, recount: bool) -> Iterator[Finding]:
    tenants = store.tenants()
    for tenant in tenants:
        with store.read(Partition(tenant)) as reader:
            counts = read_counts(reader)
        seen = f"{counts.concepts} concepts, {counts.questions} questions"
        if counts.questions:
            yield Finding(f"catalogue of {tenant}", OK, seen)
        else:
            yield Finding(f"catalogue of {tenant}", WARNING, seen, "import one: `genie import`")
        yield _model(settings, tenant)
        if recount:
            yield _counts(store, tenant)
    if not tenants:
        yield Finding("catalogue", WARNING, "the store is empty", "import a catalogue: `genie import`")


def _counts(store: Store, tenant: str) -> Finding:
    from store.recount import recount

    about, found = f"counts of {tenant}", recount(store, tenant)
    if found.agrees:
        return Finding(about, OK, f"{found.learners} learners recounted: every count is what the log holds")
    wrong = sum(map(len, found.differing.values())) + int(found.sums_differ)
    return Finding(about, WARNING, f"{wrong} counts differ from what the log holds", "`genie replay --write`")


def _model(settings: Settings, tenant: str) -> Finding:
    from server.models import ModelDirectory, ModelError

    about = f"model of {tenant}"
    models = ModelDirectory(settings.data_directory, tenant)
    try:
        version = models.current()
        if version is None:
            return Finding(
                about, OK, "none trained yet: documented priors are used; `genie train` learns one"
            )
        models.open(version, verify=True)
    except ModelError as error:
        return Finding(about, PROBLEM, str(error), "train again: `genie train`")
    return Finding(about, OK, f"{version}, every file is what its manifest says")
