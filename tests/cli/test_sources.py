"""Where settings come from: which source goes first, what is refused, and what it is told."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from runlane.config import BrokerSection, ClientSection, Config, ConfigError, load_config
from runlane.errors import SettingsError
from runlane.settings import load_settings

from .harness import Run

#: Setting -> what each source says, the first before the second, and the default.
SAYS = {
    "client.url": ("http://flag", "http://environ", "http://file", "http://project", "http://127.0.0.1:4200"),
    "broker.port": ("1", "2", 3, 4, 4200),
    "broker.log_level": ("debug", "warning", "error", "debug", "info"),
    "broker.timers.beat": ("1", "1.5s", 2.5, "500ms", 2.0),
    "broker.window_sizes": ('{"a": 1}', '{"a": 2}', {"a": 3}, {"a": 4}, {}),
}
VARIABLES = {
    "client.url": "RUNLANE_URL",
    "broker.port": "RUNLANE_PORT",
    "broker.log_level": "RUNLANE_LOG_LEVEL",
    "broker.timers.beat": "RUNLANE_TIMERS_BEAT",
    "broker.window_sizes": "RUNLANE_WINDOW_SIZES",
}
MEANS: dict[object, object] = {
    "1": 1, "2": 2, "1.5s": 1.5, "500ms": 0.5, '{"a": 1}': {"a": 1}, '{"a": 2}': {"a": 2},
}  # fmt: skip


def toml(key: str, value: object, prefix: str = "") -> str:
    section, _, name = f"{prefix}{key}".rpartition(".")
    shown = f"{{ a = {value['a']} }}" if isinstance(value, Mapping) else json.dumps(value)
    return f"[{section}]\n{name} = {shown}\n"


@pytest.mark.parametrize("key", SAYS)
@pytest.mark.parametrize("given", list(itertools.product((True, False), repeat=4)))
def test_the_first_source_that_says_anything_counts(
    folder: Path, key: str, given: tuple[bool, bool, bool, bool]
) -> None:
    flag, environ, file, project = given
    says = SAYS[key]
    if file:
        (folder / "runlane.toml").write_text(toml(key, says[2]))
    if project:
        (folder / "pyproject.toml").write_text(toml(key, says[3], "tool.runlane."))
    config = load_config({VARIABLES[key]: str(says[1])} if environ else {}, {key: says[0] if flag else None})
    resolved = next(resolved for resolved in config if resolved.setting.key == key)
    first = [*given, True].index(True)
    value = says[first]
    assert resolved.value == (MEANS.get(value, value) if isinstance(value, str) else value)
    assert (
        resolved.source
        == (
            resolved.setting.flag or key,
            VARIABLES[key],
            f"{key} in {folder / 'runlane.toml'}",
            f"tool.runlane.{key} in {folder / 'pyproject.toml'}",
            "default",
        )[first]
    )


def test_sources_complete_each_other(folder: Path) -> None:
    (folder / "runlane.toml").write_text('[broker]\nhost = "::1"\nport = 1\n')
    (folder / "pyproject.toml").write_text("[tool.runlane.broker]\nport = 2\nmax_losses = 2\n")
    config = load_config({"RUNLANE_WINDOW_SIZE": "7"}, {"broker.db": "sqlite:///x"})
    assert config.of(BrokerSection) == BrokerSection(
        host="::1", port=1, db="sqlite:///x", window_size=7, max_losses=2
    )
    assert config.paths == (folder / "runlane.toml", folder / "pyproject.toml")
    assert repr(config) == "<Config 6 given, 2 files>"


# --- Files ------------------------------------------------------------------------------------------------


def port(config: Config) -> int:
    return config.of(BrokerSection).port


def test_the_nearest_file_counts(folder: Path) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (folder / "runlane.toml").write_text("[broker]\nport = 1\n")
    assert port(load_config({}, folder=inner)) == 1
    (folder / "a" / "runlane.toml").write_text("[broker]\nport = 2\n")
    assert port(load_config({}, folder=inner)) == 2
    (inner / "pyproject.toml").write_text("[tool.runlane.broker]\nport = 3\n")  # nearer, but of lower rank
    assert port(load_config({}, folder=inner)) == 2


@pytest.mark.parametrize(
    "other", ["[project]\nname = 'x'\n", "[tool.other]\nrunlane = 1\n", "# runlane\n", "broken ["]
)
def test_a_pyproject_without_a_word_of_ours_is_passed_over(folder: Path, other: str) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "pyproject.toml").write_text("[tool.runlane.broker]\nport = 3\n")
    (inner / "pyproject.toml").write_text(other)
    assert port(load_config({}, folder=inner)) == 3


def test_a_file_that_is_named_is_the_only_one(folder: Path) -> None:
    (folder / "runlane.toml").write_text("[broker]\nport = 1\n")
    (folder / "pyproject.toml").write_text("[tool.runlane.broker]\nmax_losses = 2\n")
    (folder / "other.toml").write_text("[broker]\nport = 2\n")
    other = load_config({"RUNLANE_CONFIG": "other.toml"}).of(BrokerSection)
    assert (other.port, other.max_losses) == (2, 5)
    assert port(load_config({"RUNLANE_CONFIG": ""})) == 1


def test_what_is_relative_in_a_file_is_so_to_the_file(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "secret").write_text("a-token-of-sixteen-characters")
    (folder / "runlane.toml").write_text('[broker]\ndb = "sqlite:///data/x.db"\ntoken_file = "secret"\n')
    broker = load_config({}, folder=inner).of(BrokerSection)
    assert broker.db == f"sqlite:///{folder}/data/x.db"
    assert broker.token == "a-token-of-sixteen-characters"


@pytest.mark.parametrize("db", ["sqlite:////abs/x.db", "sqlite:///~/x.db", "postgresql://h/d", "sqlite://"])
def test_what_is_not_relative_stays(folder: Path, db: str) -> None:
    (folder / "runlane.toml").write_text(f'[broker]\ndb = "{db}"\n')
    assert load_config({}).of(BrokerSection).db == db
    assert load_config({"RUNLANE_DB": "sqlite:///x"}).of(BrokerSection).db == "sqlite:///x"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["runlane.toml", "pyproject.toml"])
def test_what_another_user_has_put_where_everybody_may_write_is_not_read(folder: Path, name: str) -> None:
    file = folder / name
    file.write_text(f"[{'tool.runlane.' if name == 'pyproject.toml' else ''}broker]\nport = 1\n")
    os.chown(file, 12345, -1)
    assert port(load_config({})) == 1
    folder.chmod(0o1777)
    assert port(load_config({})) == 4200
    assert port(load_config({}, folder=folder)) == 4200
    os.chown(file, os.geteuid(), -1)
    assert port(load_config({})) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder that a process is in")
def test_the_working_directory_may_be_gone(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert port(load_config({"RUNLANE_PORT": "1"})) == 1


# --- What there is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("RUNLANE_PROT", "RUNLANE_PORT"),
        ("RUNLANE_TOKN", "RUNLANE_TOKEN"),
        ("RUNLANE_TIMERS_BEET", "RUNLANE_TIMERS_BEAT"),
        ("RUNLANE_LIMIT", "RUNLANE_WORKER_LIMIT"),
        ("RUNLANE_LOGLEVEL", "RUNLANE_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_is_refused_by_name(variable: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({variable: "1"})
    assert str(caught.value) == f"{variable}: unknown setting; did you mean {nearest}?"


def test_what_is_like_nothing_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^RUNLANE_ZZZZZZZZZZ: unknown setting$"):
        load_config({"RUNLANE_ZZZZZZZZZZ": "1"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[broker]\nprot = 1", "broker.prot in {file}: unknown setting; did you mean broker.port?"),
        ("port = 1", "port in {file}: unknown setting; did you mean broker.port?"),
        ("[brokr]\nport = 1", "brokr in {file}: unknown setting; did you mean broker?"),
        ("[broker.timer]\nbeat = 1", "broker.timer in {file}: unknown setting; did you mean broker.timers?"),
        ("[timers]\nbeat = 1", "timers in {file}: unknown setting; did you mean broker.timers?"),
        ("[worker]\nlimits = 1", "worker.limits in {file}: unknown setting; did you mean worker.limit?"),
        ("zzz = 1", "zzz in {file}: unknown setting"),
        ("broker = 1", "broker in {file} must be a table"),
        ("[broker]\ntimers = 1", "broker.timers in {file} must be a table"),
        ('[broker]\ntoken = "s3cr3t"', "put it into a file and name that: broker.token_file"),
        ("[broker]\nport = ", "{file} is no TOML: "),
        ("[broker]\nport = 1\nport = 2", "{file} is no TOML: "),
    ],
)
def test_a_file_is_held_to_what_there_is(folder: Path, text: str, says: str) -> None:
    file = folder / "runlane.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config({})
    assert says.format(file=file) in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_project_is_named_with_its_table(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.runlane.broker]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"^tool\.runlane\.broker\.prot in .*pyproject\.toml: unknown"):
        load_config({})


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        load_config({"RUNLANE_CONFIG": "none.toml"})
    (folder / "runlane.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"runlane\.toml is no TOML"):
        load_config({})


def test_what_an_orchestrator_puts_beside_a_service_called_runlane_is_no_setting() -> None:
    """Kubernetes and Docker link a service by variables in its name, in every container beside it."""
    links = {
        "RUNLANE_SERVICE_HOST": "10.0.0.1",
        "RUNLANE_SERVICE_PORT": "4200",
        "RUNLANE_SERVICE_PORT_HTTP": "4200",
        "RUNLANE_PORT": "tcp://10.0.0.1:4200",
        "RUNLANE_PORT_4200_TCP": "tcp://10.0.0.1:4200",
        "RUNLANE_PORT_4200_TCP_PROTO": "tcp",
        "RUNLANE_PORT_4200_TCP_PORT": "4200",
        "RUNLANE_PORT_4200_TCP_ADDR": "10.0.0.1",
        "RUNLANE_BROKER_PORT": "tcp://10.0.0.1:4200",
        "RUNLANE_BROKER_SERVICE_HOST": "10.0.0.1",
    }
    assert port(load_config(links)) == 4200
    with pytest.raises(ConfigError, match="RUNLANE_SERVICE"):
        load_config({"RUNLANE_SERVICE": "1"})


# --- What is wrong ----------------------------------------------------------------------------------------

WRONG = [
    ("broker.port", "RUNLANE_PORT", "x", "must be a whole number, not 'x'"),
    ("broker.port", "RUNLANE_PORT", "65536", "must be between 0 and 65535, not 65536"),
    ("broker.port", "RUNLANE_PORT", "-1", "must be between 0 and 65535, not -1"),
    ("worker.limit", "RUNLANE_WORKER_LIMIT", "0", "must be between 1 and 1000, not 0"),
    ("broker.log_level", "RUNLANE_LOG_LEVEL", "loud", "must be one of debug, info, warning, error, not 'loud'"),
    ("broker.timers.beat", "RUNLANE_TIMERS_BEAT", "0", "must be more than 0 seconds, not '0'"),
    ("broker.timers.beat", "RUNLANE_TIMERS_BEAT", "nan", "must be a duration (30, '500ms', '5m'), not 'nan'"),
    ("broker.timers.beat", "RUNLANE_TIMERS_BEAT", "2 weeks", "must be a duration"),
    ("broker.timers.beat", "RUNLANE_TIMERS_BEAT", "25h", "must be at most 86400 seconds, not '25h'"),
    ("broker.window_sizes", "RUNLANE_WINDOW_SIZES", "[1]", "must be numbers by task key"),
    ("broker.window_sizes", "RUNLANE_WINDOW_SIZES", '{"a": 0}', "for 'a' must be between 1 and 100000, not 0"),
    ("client.url", "RUNLANE_URL", "gopher://x", "must begin with http:// or https://, not 'gopher://x'"),
    ("client.url", "RUNLANE_URL", "http://u:pw@h", "may hold no user"),
    ("client.url", "RUNLANE_URL", "http://h:99999", "is no URL"),
    ("client.url", "RUNLANE_URL", "http:///x", "names no host"),
    ("client.url", "RUNLANE_URL", "http://h:4200/api/", "is without /api, not 'http://h:4200/api/'"),
]


@pytest.mark.parametrize(("key", "variable", "value", "says"), WRONG)
def test_a_bad_value_is_told_with_its_source(folder: Path, key: str, variable: str, value: str, says: str) -> None:
    file = folder / "runlane.toml"
    file.write_text(toml(key, value))
    sources: list[tuple[Mapping[str, str], Mapping[str, object], str]] = [
        ({variable: value}, {}, variable),
        ({}, {}, f"{key} in {file}"),
    ]
    for environ, flags, source in sources:
        with pytest.raises(ConfigError) as caught:
            list(load_config(environ, flags))
        assert str(caught.value).startswith(f"{source} {says}")
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("broker.port", True),
        ("broker.port", 1.5),
        ("broker.timers.beat", True),
        ("broker.timers.beat", []),
        ("broker.host", 1),
        ("broker.host", ""),
        ("broker.log_level", 3),
    ],
)
def test_a_file_has_types(folder: Path, key: str, value: object) -> None:
    (folder / "runlane.toml").write_text(toml(key, value))
    with pytest.raises(ConfigError, match="must be"):
        list(load_config({}))


def test_only_what_is_used_has_to_be_right() -> None:
    config = load_config({"RUNLANE_PORT": "x"})
    assert config.of(ClientSection) == ClientSection()
    assert load_settings({"RUNLANE_PORT": "x"}).url == "http://127.0.0.1:4200"


def test_an_empty_variable_says_nothing() -> None:
    assert load_config({"RUNLANE_PORT": "", "RUNLANE_HOST": "", "RUNLANE_URL": ""}).of(BrokerSection).port == 4200


# --- Secrets ----------------------------------------------------------------------------------------------

SECRET = "a-token-of-sixteen-characters"


def test_a_secret_may_stand_in_a_file(folder: Path) -> None:
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "other").write_text("another-token-of-the-same-kind")
    (folder / "runlane.toml").write_text('[client]\ntoken_file = "token"\n')
    assert load_config({}).of(ClientSection).token == SECRET
    assert load_config({"RUNLANE_TOKEN_FILE": "other"}).of(ClientSection).token == "another-token-of-the-same-kind"
    assert load_config({"RUNLANE_TOKEN": "x"}, {"client.token_file": "token"}).of(ClientSection).token == SECRET
    assert load_config({"RUNLANE_TOKEN": "x"}).of(ClientSection).token == "x"
    assert SECRET not in repr(load_config({}).of(ClientSection))


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"RUNLANE_TOKEN": "", "RUNLANE_URL": "http://h"}, "RUNLANE_TOKEN is empty"),
        ({"RUNLANE_TOKEN_FILE": ""}, "RUNLANE_TOKEN_FILE must be the name of a file"),
        ({"RUNLANE_TOKEN_FILE": "empty"}, "RUNLANE_TOKEN_FILE is empty: empty"),
        ({"RUNLANE_TOKEN_FILE": "none"}, "RUNLANE_TOKEN_FILE cannot be read: none: No such file or directory"),
        ({"RUNLANE_TOKEN_FILE": "binary"}, "RUNLANE_TOKEN_FILE cannot be read: binary is no text"),
        (
            {"RUNLANE_TOKEN": "s3cr3t", "RUNLANE_TOKEN_FILE": "x"},
            "set RUNLANE_TOKEN or RUNLANE_TOKEN_FILE, not both",
        ),
        (
            {"RUNLANE_TOKEN": "s3cr3t"},
            "RUNLANE_TOKEN must be 16 to 1024 printable ASCII characters without spaces",
        ),
        ({"RUNLANE_TOKEN": "s3cr3t" * 5 + "\n"}, "RUNLANE_TOKEN must be 16 to 1024 printable"),
    ],
)
def test_a_bad_secret_is_told_without_telling_it(folder: Path, environ: dict[str, str], says: str) -> None:
    (folder / "empty").write_text(" \n")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as caught:
        load_config(environ).of(BrokerSection)
    assert str(caught.value).startswith(says)
    assert "s3cr3t" not in str(caught.value)


# --- The library ------------------------------------------------------------------------------------------


def test_the_library_reads_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "token").write_text(SECRET)
    (folder / "runlane.toml").write_text('[client]\nurl = "https://h/prefix/"\ntoken_file = "token"\n')
    settings = load_settings()
    assert (settings.url, settings.token) == ("https://h/prefix", SECRET)
    assert load_settings(url="http://given", token="t").url == "http://given"
    monkeypatch.setenv("RUNLANE_URL", "http://environ")
    assert load_settings().url == "http://environ"
    monkeypatch.setenv("RUNLANE_TOKN", "x")
    with pytest.raises(SettingsError, match="did you mean RUNLANE_TOKEN"):
        load_settings()


def test_a_table_of_ours_that_is_none_is_an_error(runlane: Run, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool]\nrunlane = 9\n")
    done = runlane("config", "show")
    assert (done.code, done.complaint) == (
        2,
        f"runlane: tool.runlane in {folder / 'pyproject.toml'} must be a table",
    )
    (folder / "pyproject.toml").write_text("tool = 'runlane'\n")
    assert runlane("config", "show").code == 0
