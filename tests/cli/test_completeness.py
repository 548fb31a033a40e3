"""A setting is declared once, and found everywhere: help, docs, the dataclasses that programs read."""

from __future__ import annotations

import dataclasses
import inspect
import os
import tomllib

import pytest

from runlane.config import BrokerSection, ClientSection, Section, TimersSection, WorkerSection, settings_of
from runlane.config.declared import FILE_KEYS, SETTINGS, VARIABLES
from runlane.config.sections import SECTIONS
from runlane.protocol.limits import MAX_LIMIT
from runlane.settings import Settings as ClientSettings
from runlane.worker import Worker
from runlane_broker.settings import Settings, Timers, load

from .harness import Run, words
from .page import PAGE, table

#: Command -> the sections whose settings are its options.
COMMANDS: dict[str, tuple[type[Section], ...]] = {
    "serve": (BrokerSection,),
    "worker": (WorkerSection, ClientSection),
    "submit": (ClientSection,),
    "status": (ClientSection,),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_a_setting(section: type[Section]) -> None:
    names = [field.name for field in dataclasses.fields(section)]  # type: ignore[arg-type]
    assert [setting.name for setting in settings_of(section)] == names
    assert all(setting.help for setting in settings_of(section))


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.key)
def test_every_default_is_a_value(setting: object) -> None:
    assert setting.default is None or setting.kind.read(setting.default) == setting.default  # type: ignore[attr-defined]


def test_keys_and_variables_name_one_thing() -> None:
    assert len(FILE_KEYS) == len(SETTINGS) == sum(len(settings_of(section)) for section in SECTIONS)
    shared = {name: keys for name, keys in VARIABLES.items() if len(keys) > 1}
    assert shared == {
        "RUNLANE_TOKEN": ("client.token", "broker.token"),
        "RUNLANE_TOKEN_FILE": ("client.token_file", "broker.token_file"),
        "RUNLANE_LOG_LEVEL": ("worker.log_level", "broker.log_level"),
        "RUNLANE_LOG_FORMAT": ("worker.log_format", "broker.log_format"),
    }
    for keys in shared.values():  # or one of them could not be read where it is right for the other
        kinds = {SETTINGS[key].kind for key in keys if key in SETTINGS}
        assert len(kinds) <= 1 or keys[0] == "client.token"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_every_option_with_its_variable_and_default(runlane: Run, command: str) -> None:
    done = runlane(command, "--help")
    assert done.code == 0
    text = words(done.out)
    for section in COMMANDS[command]:
        assert f"[{section.SECTION}] in runlane.toml" in text
        for setting in settings_of(section):
            assert (setting.flag is None) == (f"{setting.flag} " not in text)
            if setting.flag:
                assert setting.help in text
                assert setting.variable in text
                assert setting.secret or f"default: {setting.kind.plain(setting.default)}" in text


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_every_setting(section: type[Section]) -> None:
    """`python -m tests.cli.page` prints the tables as they have to be."""
    assert table(section) in PAGE.read_text("utf-8")


def test_the_page_has_an_example_that_works(folder: object) -> None:
    example = PAGE.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    with open("runlane.toml", "w", encoding="utf-8") as file:
        file.write(example)
    assert tomllib.loads(example)["broker"]["window_sizes"] == {"emails.send": 2000}
    os.mkdir("secrets")
    with open("secrets/token", "w", encoding="utf-8") as file:
        file.write("a-token-of-sixteen-characters")
    settings = load({}, {})
    assert (settings.timers.drain, settings.window_sizes) == (5.0, {"emails.send": 2000})


def test_programs_start_from_the_declared_defaults() -> None:
    assert load({}, {}) == Settings()
    assert Settings().timers == Timers()
    assert dataclasses.asdict(Timers()) == dataclasses.asdict(TimersSection())
    assert ClientSettings() == ClientSettings(**dataclasses.asdict(ClientSection()))
    of_worker = inspect.signature(Worker).parameters
    assert of_worker["limit"].default == WorkerSection().limit
    assert of_worker["drain_seconds"].default == WorkerSection().drain_timeout
    assert SETTINGS["worker.limit"].kind.high == MAX_LIMIT  # type: ignore[attr-defined]
