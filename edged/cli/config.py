"""`edged config`: checks a settings file, shows what is in effect, prints the schema. Starts nothing."""

import json
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from ..core.topology import choose, threads
from ..errors import NotNowError, SettingsError
from ..settings import Settings, load, toml_text
from ..settings.http import is_loopback
from ..tools import GROUP
from . import ON_THE_BOARD, app

config = typer.Typer(no_args_is_help=True)
app.add_typer(config, name="config", help="Check and show the settings.", rich_help_panel=ON_THE_BOARD)

CertainFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Settings file (TOML).", show_default=False, readable=False),
]
PossibleFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        envvar="EDGED_CONFIG",
        help="Settings file (TOML); defaults and environment without.",
        readable=False,  # as settings_file has it
    ),
]


@config.command()
def check(
    file: CertainFile,
    as_json: Annotated[bool, typer.Option("--json", help="The warnings as JSON on standard output.")] = False,
) -> None:
    """Check FILE and the environment; exit code 78 where it is wrong."""
    settings = load(file)
    told = [*warnings(settings), *_cores(settings)]
    if as_json:
        print(json.dumps({"file": str(file), "ok": True, "warnings": told}))
        return
    print(f"{file}: ok")
    for warning in told:
        print(f"{file}: warning: {warning}")


@config.command()
def show(
    file: PossibleFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of TOML.")] = False,
) -> None:
    """Show the settings in effect: defaults, FILE, environment."""
    settings = load(file)
    if as_json:
        print(json.dumps(settings.model_dump(mode="json"), indent=2))
    else:
        print(toml_text(settings), end="")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | Settings.model_json_schema(), indent=2))


def warnings(settings: Settings) -> Iterator[str]:
    """What is accepted but will not work, or not well, on this machine as it stands; one line each."""
    mqtt, http, upstream = settings.mqtt, settings.http, settings.upstream
    files = {
        "model.path": settings.model.path,
        "model.chat_template": settings.model.chat_template,
        "mqtt.tls.ca": mqtt.tls.ca if mqtt.tls else None,
        "mqtt.tls.cert": mqtt.tls.cert if mqtt.tls else None,
        "mqtt.tls.key": mqtt.tls.key if mqtt.tls else None,
        "http.tls.cert": http.tls.cert if http.enabled and http.tls else None,
        "http.tls.key": http.tls.key if http.enabled and http.tls else None,
        "upstream.ca": upstream.ca if upstream.url else None,
    }
    for key, path in files.items():
        if path is not None and not os.access(path, os.R_OK):
            yield f"{key}: {str(path)!r}: no such file, or not readable"
        elif path is not None and not path.is_file():
            yield f"{key}: {str(path)!r}: no regular file"
    yield from _certificates(settings)
    yield from _face(settings)
    secrets = [
        mqtt.password,
        *([http.key] if http.enabled else []),
        *([upstream.key] if upstream.url else []),
    ]
    for secret in secrets:
        try:
            secret()
        except SettingsError as error:
            yield str(error)
    installed = sorted({entry.name for entry in entry_points(group=GROUP)})
    for name in settings.tools.enabled:
        if name not in installed:
            yield f"tools.enabled: there is no tool {name}; installed are {', '.join(installed)}"
    yield from _in_clear(settings)


def _cores(settings: Settings) -> Iterator[str]:
    """Cores and threads that this machine does not have; the doctor tells of them beside the cores that it has."""
    from ..adapters.vitals import VitalsReader  # noqa: PLC0415 - the other commands here read no board

    engine = settings.engine
    try:
        topology = VitalsReader(settings.paths.sys, settings.paths.proc).topology()
        choice = choose(topology, frozenset(os.sched_getaffinity(0)), engine.core_set())
        threads(choice, engine.decode_threads, engine.prefill_threads)
    except ValueError as error:
        yield f"engine: {error}"


def _in_clear(settings: Settings) -> Iterator[str]:
    """Secrets that anybody on the way can read, and one without its name."""
    mqtt, http = settings.mqtt, settings.http
    if mqtt.password_file is not None and mqtt.tls is None and not is_loopback(mqtt.host):
        yield f"mqtt.tls: not set: the password travels to {mqtt.host} unencrypted"
    if mqtt.password_file is not None and mqtt.username is None:
        yield "mqtt.username: not set: brokers take a password only with a user name"
    if http.enabled and http.tls is None and not is_loopback(http.host):
        yield "http.tls: not set: the key and all questions travel unencrypted"


def _certificates(settings: Settings) -> Iterator[str]:
    """Files for TLS towards the broker that are there and that OpenSSL does not take."""
    tls = settings.mqtt.tls
    try:
        if tls is not None and _there(tls.ca, tls.cert, tls.key):
            from ..adapters.mqtt.link import Tls, tls_context  # noqa: PLC0415 - brings paho

            tls_context(Tls(tls.ca, tls.cert, tls.key))
    except SettingsError as error:
        yield str(error)


def _face(settings: Settings) -> Iterator[str]:
    """What of the HTTP face `edged run` ends for: its packages, its files for TLS, where it is to listen."""
    http = settings.http
    if not http.enabled:
        return
    try:
        from ..adapters.http.server import Listening, bind, tls_context  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        yield f"http.enabled: the package {error.name} is missing; install edged with its extra: edged[http]"
        return
    try:
        if http.tls is not None and _there(http.tls.cert, http.tls.key):
            tls_context(http.tls.cert, http.tls.key)
    except SettingsError as error:
        yield str(error)
    try:
        bind(Listening(http.host, http.port, http.connections)).close()
    except NotNowError:
        pass  # a daemon that runs has the port; one that starts waits for it
    except SettingsError as error:
        yield str(error)


def _there(*paths: Path | None) -> bool:
    return all(path is None or (path.is_file() and os.access(path, os.R_OK)) for path in paths)
