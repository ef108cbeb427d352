"""Settings: where they come from, what is refused, and how it is said."""

import dataclasses
from pathlib import Path

import pytest

from server.config import ConfigurationError, Settings, load, settings_info


def refused(**given: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(**{"environment": {}, **given})  # type: ignore[arg-type]
    return str(caught.value)


def test_defaults_are_inside_their_own_bounds() -> None:
    texts = {info.name: str(info.default).lower() for info in settings_info() if info.default != ""}
    assert load(environment={}, options=texts).settings == Settings()


def test_every_setting_has_help_a_type_and_a_bound() -> None:
    for info in settings_info():
        assert info.about
        assert info.about[0].isupper()
        assert info.kind in (bool, int, float, str, Path)
        if info.kind in (int, float):
            assert info.least is not None
            assert info.most is not None


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "genie.toml"
    file.write_text('port = 1\nthreads = 3\nmax_streams = 4\nhost = "::1"\n')
    environment = {"GENIE_PORT": "2", "GENIE_THREADS": "5", "GENIE_CONFIG": str(file)}
    settings, sources, warnings = load(environment=environment, options={"port": "6"})
    assert (settings.port, settings.threads, settings.max_streams, settings.host) == (6, 5, 4, "::1")
    assert sources["port"] == "option --port"
    assert sources["threads"] == "environment GENIE_THREADS"
    assert sources["max_streams"] == f"file {file}"
    assert sources["workers"] == "default"
    assert warnings == ()


def test_an_explicit_file_beats_the_one_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "genie.toml"
    file.write_text("port = 7")
    assert load(environment={"GENIE_CONFIG": "/nowhere"}, file=file).settings.port == 7


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("GENIE_PORT", "65536"),
        ("GENIE_PORT", "-1"),
        ("GENIE_PORT", "eighty"),
        ("GENIE_PORT", "1.5"),
        ("GENIE_PORT", ""),
        ("GENIE_PORT", "1_0"),
        ("GENIE_PORT", "१०"),
        ("GENIE_DRAIN_SECONDS", "1_0.5"),
        ("GENIE_DRAIN_SECONDS", "nan"),
        ("GENIE_DRAIN_SECONDS", "inf"),
        ("GENIE_ACCESS_LOG_RATIO", "1.01"),
        ("GENIE_REFLECTION", "perhaps"),
        ("GENIE_LOG_LEVEL", "loud"),
        ("GENIE_STORE", "LMDB"),
        ("GENIE_DATA_DIRECTORY", ""),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_bound_and_source(variable: str, text: str) -> None:
    info = next(info for info in settings_info() if info.variable == variable)
    message = refused(environment={variable: text})
    assert message == f"{info.name} (from environment {variable}) is {text!r}; must be {info.bound}"


@pytest.mark.parametrize("digits", [400, 5_000])
def test_numbers_beyond_all_bounds_are_refused(tmp_path: Path, digits: int) -> None:
    number = "9" * digits
    assert "must be a whole number from 1 to 256" in refused(environment={"GENIE_THREADS": number})
    assert "must be a number from 0 to 3600" in refused(environment={"GENIE_DRAIN_SECONDS": number})
    file = tmp_path / "genie.toml"
    for name in ("threads", "drain_seconds"):
        file.write_text(f"{name} = {number}")
        assert refused(file=file)


def test_a_hang_is_longer_than_the_pause_between_two_beats() -> None:
    message = refused(environment={"GENIE_HANG_SECONDS": "4.5"})
    assert "hang_seconds is 4.5; must be 0 or from 5 on" in message
    for fine in ("0", "5", "3600"):
        assert load(environment={"GENIE_HANG_SECONDS": fine}).settings.hang_seconds == float(fine)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "genie.toml"
    file.write_text('thread = 4\nworkers = "two"\nreflection = 3\n')
    message = refused(environment={"GENIE_PORT": "x"}, file=file)
    assert f"thread (from file {file}) is no setting; did you mean threads?" in message
    assert "workers" in message
    assert "reflection" in message
    assert "GENIE_PORT" in message


def test_a_file_value_of_another_type_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "genie.toml"
    for line in ("port = true", "port = 80.0", "port = [80]", "host = 3", "reflection = [1]"):
        file.write_text(line)
        assert line.split()[0] in refused(file=file)


def test_an_unreadable_file_is_said_plainly(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(file=tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("port = = 3")
    assert "is not valid TOML" in refused(file=broken)
    broken.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in refused(file=broken)


def test_a_kubernetes_service_link_is_recognised() -> None:
    assert "enableServiceLinks" in refused(environment={"GENIE_PORT": "tcp://10.0.0.1:50051"})


def test_a_stray_variable_is_a_warning() -> None:
    loaded = load(environment={"GENIE_PROT": "1", "GENIE_DATA": "/data", "HOME": "/"})
    assert loaded.warnings == ("environment variable GENIE_PROT is no setting; did you mean GENIE_PORT?",)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tls_certificate_file": "c.pem"}, "tls_key_file"),
        ({"tls_key_file": "k.pem"}, "tls_certificate_file"),
        ({"tls_client_ca_file": "ca.pem"}, "tls_certificate_file"),
        ({"store": "memory", "workers": "2"}, "workers is 2"),
        ({"threads": "8", "max_concurrent_calls": "4"}, "max_concurrent_calls is 4"),
    ],
)
def test_settings_that_cannot_be_together(options: dict[str, str], named: str) -> None:
    assert named in refused(options=options)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["a..b", ".a", f"{'a' * 64}.it"])
def test_names_of_no_host_are_refused(host: str) -> None:
    assert f"host is {host!r}; must be an address or a name" in refused(options={"host": host})
    for name in ("experiments_address", "metrics_address"):
        assert f"{name} is '{host}:1'; must be host:port" in refused(options={name: f"{host}:1"})


@pytest.mark.parametrize("host", ["::1", "[::]", "fe80::1%eth0", "0.0.0.0", "example.com.", "bücher.example"])
def test_addresses_and_names_are_taken_as_hosts(host: str) -> None:
    assert load(environment={}, options={"host": host}).settings.host == host


@pytest.mark.parametrize("port", ["", "65536", "9" * 5_000, "१०", "-1", "1_0"])
def test_addresses_without_a_port_are_refused(port: str) -> None:
    assert "must be host:port" in refused(options={"metrics_address": f"127.0.0.1:{port}"})
