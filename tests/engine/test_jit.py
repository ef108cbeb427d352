"""Compiled kernels are kept apart by the sources that they may take something from."""

from pathlib import Path

import pytest

from engine import jit


def test_an_edit_sends_every_kernel_that_may_take_from_it_to_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "files", tmp_path.joinpath)
    monkeypatch.setattr(jit, "_CHOSEN", "")

    def places() -> tuple[str, str]:
        return jit._place.__wrapped__("engine"), jit._place.__wrapped__("server")

    for name in ("engine", "store", "server", "genie"):
        (tmp_path / name / "parts").mkdir(parents=True)
        (tmp_path / name / "parts" / "some.py").write_text("MOST = 1\n")
    of_engine, of_others = places()
    assert of_engine != of_others
    (tmp_path / "store" / "parts" / "some.py").write_text("MOST = 2\n")
    assert places()[0] == of_engine
    assert places()[1] != of_others
    of_others = places()[1]
    (tmp_path / "engine" / "parts" / "some.py").write_text("MOST = 2\n")
    assert places()[0] != of_engine
    assert places()[1] != of_others
    assert Path(places()[0]).is_dir()


def test_a_place_that_was_chosen_holds_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_CHOSEN", "/chosen")
    of_engine, of_others = (jit._place.__wrapped__(package) for package in ("engine", "server"))
    assert of_engine.startswith("/chosen/genie-")
    assert of_others.startswith("/chosen/genie-")
