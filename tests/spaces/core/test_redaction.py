"""What may be shown, and written down, of an address with credentials."""

import pytest

from spaces import RequestError, WorkError
from spaces.core.redaction import mask, strip_credentials


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pw@host:5000/a", "http://user:***@host:5000/a"),
        ("https://t0ken@host", "https://***@host"),
        ("postgresql://u:a/b@h/db?sslmode=x", "postgresql://u:***@h/db?sslmode=x"),
        ("postgresql://h/db?user=u&password=pw", "postgresql://h/db?user=u&password=***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("the hunter22 is known", "the *** is known"),
        ("http://host:5000 and sqlite:////a/b.db", "http://host:5000 and sqlite:////a/b.db"),
    ],
)
def test_credentials_are_masked(monkeypatch, text, masked):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("uri", "without"),
    [
        ("http://user:pw@host:5000/a", "http://host:5000/a"),
        ("https://t0ken@host", "https://host"),
        ("http://user:p@/w@host", "http://host"),
        ("postgresql://u:a/b@h/db?sslmode=x", "postgresql://u@h/db?sslmode=x"),
        ("postgresql+psycopg2://u@h:5432/db", "postgresql+psycopg2://u@h:5432/db"),
        ("postgresql://h/db?password=pw", "postgresql://h/db"),
        ("postgresql://h/db?password=pw&user=u", "postgresql://h/db?user=u"),
        ("postgresql://h/db?user=u&password=pw", "postgresql://h/db?user=u"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b@c:d/mlflow.db", "sqlite:////a/b@c:d/mlflow.db"),
    ],
)
def test_an_address_without_credentials_is_still_one(uri, without):
    assert strip_credentials(uri) == without == strip_credentials(without)
    assert "pw" not in strip_credentials(uri) and "t0ken" not in strip_credentials(uri)


@pytest.mark.parametrize("filler", ["", "x" * 130])
def test_no_error_of_ours_shows_credentials(filler):
    uri = f"http://user:s3cr3t{filler}@host"
    for error in (
        RequestError(f"a rule about {uri}", value=uri, hint=f"see {uri}"),
        RequestError("a rule", value={"uri": uri}),
        WorkError(f"it failed at {uri}"),
    ):
        assert "s3cr3t" not in str(error) + repr(error)
    assert "http://user:***@host" in str(RequestError("a rule", value=uri))
