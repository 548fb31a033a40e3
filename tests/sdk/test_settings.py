"""Settings: what is accepted, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from runlane.errors import SettingsError
from runlane.settings import Settings, load_settings, submission_url, worker_url

SUBMISSIONS = "/api/task_runs/submissions"


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://127.0.0.1:4200", "ws://127.0.0.1:4200"),
        ("https://example.org/", "wss://example.org"),
        ("ws://h:1/pre/fix/", "ws://h:1/pre/fix"),
        ("WSS://h", "wss://h"),
        (" http://[::1]:4200 ", "ws://[::1]:4200"),
    ],
)
def test_urls(url: str, socket: str) -> None:
    settings = load_settings({"RUNLANE_URL": url})
    assert submission_url(settings) == socket + SUBMISSIONS
    assert worker_url(settings) == socket + "/api/task_runs/subscriptions/scheduled"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:4200",
        "ftp://h",
        "http://",
        "http://h:x",
        "http://h:99999",
        "http://u:pw@h",
        "http://h?token=pw",
        "http://a b",
    ],
)
def test_bad_urls_are_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(SettingsError, match="RUNLANE_URL") as caught:
        load_settings({"RUNLANE_URL": url})
    assert "pw" not in str(caught.value)


def test_defaults_and_what_goes_first() -> None:
    assert load_settings({}) == Settings("http://127.0.0.1:4200")
    environ = {"RUNLANE_URL": "http://a", "RUNLANE_TOKEN": "t"}
    assert load_settings(environ, url="http://b", token="u") == Settings("http://b", "u")
    assert "t0ken" not in repr(Settings(token="t0ken"))


def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert load_settings({"RUNLANE_TOKEN_FILE": str(file)}).token == "secret"
    with pytest.raises(SettingsError, match="not both"):
        load_settings({"RUNLANE_TOKEN_FILE": str(file), "RUNLANE_TOKEN": "x"})
    file.write_text(" \n")
    with pytest.raises(SettingsError, match="empty"):
        load_settings({"RUNLANE_TOKEN_FILE": str(file)})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({"RUNLANE_TOKEN_FILE": str(tmp_path / "none")})
