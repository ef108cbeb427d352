"""Files of TLS that cannot be used are named by their setting, before anything listens."""

from pathlib import Path

import pytest

from server.app import Genie
from server.config import ConfigurationError, Settings
from tests.server.echo import assemble

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBpTCCAUugAwIBAgIUG9Q5iFtNHMNctjfDq0Ye+sKfEqYwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKZ2VuaWUudGVzdDAgFw0yNjExMjMwODMyMDJaGA8yMTI2MTAz
MDA4MzIwMlowFTETMBEGA1UEAwwKZ2VuaWUudGVzdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABGaaXhbRQvddvWT+HnXozmr9Ly3OzWLLokycC4cQNL+4qDLhmPf/
TYf0FTqAb8VJbbh9KVqgcRoDEBgbCPWcH2WjdzB1MB0GA1UdDgQWBBSVm7MCfC3C
v8C8+cqJWgFUfnWwlTAfBgNVHSMEGDAWgBSVm7MCfC3Cv8C8+cqJWgFUfnWwlTAP
BgNVHRMBAf8EBTADAQH/MBUGA1UdEQQOMAyCCmdlbmllLnRlc3QwCwYDVR0PBAQD
AgKEMAoGCCqGSM49BAMCA0gAMEUCIQDYzi0Bk6LnVvlPpmGN4vmzLhJhCPjJI3Wq
Vb3GvNSlTwIgMhvcvHdCzHSagdLJsQHTGayJFpQqPZkTiVLCGH3ie98=
-----END CERTIFICATE-----
"""
"""Made for these tests, as are the keys; nobody else trusts it."""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWIRzLxHIcghT/GpG
ETtjY4Y+6kxHq0wN0u4ZrrZTOQyhRANCAARmml4W0UL3Xb1k/h516M5q/S8tzs1i
y6JMnAuHEDS/uKgy4Zj3/02H9BU6gG/FSW24fSlaoHEaAxAYGwj1nB9l
-----END PRIVATE KEY-----
"""
OTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4Syrsnfujl1uEHWk
V8pj14WCqJcww3sCvpS2M8YtLGGhRANCAAS1xVPAqsZ1SFVs7F1naB8C94LPu3cl
LgkPDt8CKxIDeL9NPLZZGIXBcYzbcewZ9EHpkCMyBwTcctz+/v1JfDAi
-----END PRIVATE KEY-----
"""
TORN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Settings of TLS that can be used."""
    texts = {"tls_certificate_file": CERTIFICATE, "tls_key_file": KEY, "tls_client_ca_file": CERTIFICATE}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


def started(files: dict[str, str]) -> int:
    genie = Genie(Settings(port=0, **files), assemble)  # type: ignore[arg-type]
    try:
        return genie.start()
    finally:
        genie.drain(notice=False)


def test_files_that_belong_together_are_served_with(files: dict[str, str]) -> None:
    assert started(files) > 0


@pytest.mark.parametrize(
    ("setting", "text", "why"),
    [
        ("tls_certificate_file", "junk", "holds no certificate"),
        ("tls_certificate_file", "", "holds no certificate"),
        ("tls_certificate_file", TORN, "holds no certificate"),
        ("tls_certificate_file", KEY, "holds no certificate"),
        ("tls_key_file", "junk", "holds no private key"),
        ("tls_key_file", CERTIFICATE, "holds no private key"),
        ("tls_key_file", OTHER_KEY, "is not the key of the certificate"),
        ("tls_client_ca_file", "junk", "holds no certificate"),
        ("tls_client_ca_file", "", "holds no certificate"),
        ("tls_client_ca_file", TORN, "holds no certificate"),
    ],
)
def test_the_setting_that_is_wrong_is_named(files: dict[str, str], setting: str, text: str, why: str) -> None:
    Path(files[setting]).write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        started(files)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{setting} is {files[setting]}, which {why}")


def test_a_file_that_is_not_there_is_named(files: dict[str, str]) -> None:
    Path(files["tls_key_file"]).unlink()
    with pytest.raises(ConfigurationError, match=r"tls_key_file is .*, which cannot be read: No such file"):
        started(files)
