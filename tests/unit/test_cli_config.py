"""The command line around the configuration, as a person or a unit file runs it: a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from certificates import Authority

from edged import __version__

CONFIGS = Path(__file__).parents[2] / "configs"


def edged(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m edged` with `arguments`, without what this process has of edged's variables."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
    return subprocess.run(
        [sys.executable, "-m", "edged", *arguments],
        capture_output=True,
        text=True,
        env=bare | environment,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("profile", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_check_accepts_profiles(profile: Path) -> None:
    """Every profile is accepted, with a warning while its model is not there."""
    done = edged("config", "check", str(profile))
    assert done.returncode == 0
    assert done.stdout.startswith(f"{profile}: ok\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[mqtt]\nport = 70000",
            "mqtt.port: 70000 is not accepted: input should be less than or equal to 65535",
        ),
        ("[mqtt]\nprot = 1", "mqtt.prot: unknown key; did you mean mqtt.port?"),
        ("[mqtt\n", "not TOML: "),
        (
            "[engine]\ncontext_max = 900",
            "engine.context_min: 1024 is not accepted: at most engine.context_max",
        ),
    ],
)
def test_check_refuses(tmp_path: Path, text: str, line: str) -> None:
    """A mistake gives exit code 78 and one line on standard error with file, key and what is accepted."""
    file = tmp_path / "edged.toml"
    file.write_text(f'model.path = "m"\n{text}\n')
    done = edged("config", "check", str(file))
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith(f"{file}: {line}")
    assert done.stderr.count("\n") == 1


def test_check_of_nothing(tmp_path: Path) -> None:
    """A file that is not there is a mistake in the configuration; a command without its file wrong usage."""
    done = edged("config", "check", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert edged("config", "check").returncode == 2


def test_bad_variable() -> None:
    """A mistake in the environment names the variable."""
    done = edged("config", "show", EDGED_MODEL__PATH="m", EDGED_MQTT__PORT="0")
    assert done.returncode == 78
    assert done.stderr.startswith("EDGED_MQTT__PORT: mqtt.port: 0 is not accepted")


def test_check_warns(tmp_path: Path) -> None:
    """What is accepted but will not work here is told, a line each, and is no failure."""
    file = tmp_path / "edged.toml"
    file.write_text(
        '[model]\npath = "none.gguf"\n[mqtt]\nhost = "broker.example"\npassword_file = "none"\n'
        '[http]\nenabled = true\nkey_file = "none"\ntls = {cert = "none", key = "none"}\n'
        '[upstream]\nurl = "https://gpu.example/v1"\nmodel = "m"\nca = "none"\nkey_file = "none"\n'
        '[tools]\nenabled = ["clock", "none"]\n'
    )
    done = edged("config", "check", str(file))
    first, *warnings = done.stdout.splitlines()
    assert (done.returncode, first) == (0, f"{file}: ok")
    assert [line.removeprefix(f"{file}: warning: ").split(": ")[0] for line in warnings] == [
        "model.path",
        "http.tls.cert",
        "http.tls.key",
        "upstream.ca",
        "mqtt.password_file",
        "http.key_file",
        "upstream.key_file",
        "tools.enabled",
        "mqtt.tls",
        "mqtt.username",
    ]


def test_check_tells_of_certificates_with_which_the_daemon_ends(tmp_path: Path) -> None:
    """Files that are there, and no pair: `edged run` ends with 78, for which systemd does not try again."""
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    one, other = authority.server(), authority.server()
    file = tmp_path / "edged.toml"
    (tmp_path / "key").write_text("0123456789abcdef")
    for ca, key, told in (
        (authority.pem, one.key, []),
        (authority.pem, other.key, ["mqtt.tls.cert and mqtt.tls.key", "http.tls"]),
        (one.key, one.key, ["mqtt.tls.ca"]),
    ):
        file.write_text(
            f'[model]\npath = "{file}"\n[mqtt]\ntls = {{ca = "{ca}", cert = "{one.cert}", key = "{key}"}}\n'
            f'[http]\nenabled = true\nhost = "0.0.0.0"\nkey_file = "key"\n'
            f'tls = {{cert = "{one.cert}", key = "{key}"}}\n'
        )
        first, *warnings = edged("config", "check", str(file)).stdout.splitlines()
        assert first == f"{file}: ok"
        assert [line.removeprefix(f"{file}: warning: ").split(": ")[0] for line in warnings] == told
    file.write_text(f'[model]\npath = "{file}"\n[http]\nenabled = true\nhost = "0.0.0.0"\nkey_file = "key"\n')
    assert "http.tls: not set: the key and all questions travel" in edged("config", "check", str(file)).stdout


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('cores = "4000"', "engine: "),
        ("decode_threads = 256", "engine: decode_threads is 256, but the engine is pinned to "),
        ("prefill_threads = 256", "engine: prefill_threads is 256, but "),
    ],
)
def test_check_tells_of_cores_with_which_the_daemon_ends(tmp_path: Path, line: str, told: str) -> None:
    """Those of another board are well-formed, and no daemon starts with them here."""
    file = tmp_path / "edged.toml"
    file.write_text(f'[model]\npath = "{file}"\n[engine]\n{line}\n[paths]\nstate = "{tmp_path / "state"}"\n')
    first, warning = edged("config", "check", str(file)).stdout.splitlines()
    assert first == f"{file}: ok"
    assert warning.startswith(f"{file}: warning: {told}")
    ended = edged("run", "--config", str(file))
    assert (ended.returncode, f"{file}: warning: {ended.stderr}") == (78, f"{warning}\n")


@pytest.mark.parametrize(
    ("host", "told"), [("fe80::1%none0", "http.host: fe80::1%none0:"), ("127.0.0.1", None)]
)
def test_check_tells_of_an_address_with_which_the_daemon_ends(
    tmp_path: Path, host: str, told: str | None
) -> None:
    """One of an interface that is not there; of a port that a running daemon has it says nothing."""
    file = tmp_path / "edged.toml"
    (tmp_path / "key").write_text("0123456789abcdef")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        face = f'host = "{host}"\nport = {taken.getsockname()[1]}\nkey_file = "key"\n'
        file.write_text(
            f'[model]\npath = "{file}"\n[paths]\nstate = "{tmp_path}"\n[http]\nenabled = true\n{face}'
        )
        first, *warnings = edged("config", "check", str(file)).stdout.splitlines()
    assert first == f"{file}: ok"
    mistakes = [line for line in warnings if "unencrypted" not in line]
    if told is None:
        assert mistakes == []
    else:
        ended = edged("run", "--config", str(file))
        assert (ended.returncode, mistakes) == (78, [f"{file}: warning: {ended.stderr.rstrip()}"])
        assert ended.stderr.startswith(told)


def test_show(tmp_path: Path) -> None:
    """What is in effect is shown as TOML or JSON: defaults, file, environment, and never a password."""
    file = tmp_path / "edged.toml"
    file.write_text('[model]\npath = "/m.gguf"\n[mqtt]\nport = 1000\npassword_file = "mqtt-password"\n')
    (tmp_path / "mqtt-password").write_text("hunter2\n")
    plain = edged("config", "show", str(file), EDGED_NODE__ID="b1")
    as_json = edged("config", "show", "--json", EDGED_NODE__ID="b1", EDGED_CONFIG=str(file))
    for shown in (tomllib.loads(plain.stdout), json.loads(as_json.stdout)):
        assert (shown["node"]["id"], shown["mqtt"]["port"], shown["model"]["path"]) == ("b1", 1000, "/m.gguf")
        assert shown["engine"]["context_max"] == 2048
    assert "hunter2" not in plain.stdout + as_json.stdout


def test_schema() -> None:
    """The schema is JSON that knows every section, its bounds and meanings."""
    schema = json.loads(edged("config", "schema").stdout)
    assert set(schema["properties"]) >= {
        "node",
        "mqtt",
        "model",
        "engine",
        "limits",
        "health",
        "log",
        "paths",
    }
    assert schema["required"] == ["model"]
    port = schema["$defs"]["Mqtt"]["properties"]["port"]
    assert (port["minimum"], port["maximum"], port["default"]) == (1, 65535, 1883)
    assert port["description"]


def test_version_and_help() -> None:
    """The version and the help need no configuration; an unknown command is wrong usage."""
    assert edged("--version").stdout == f"edged {__version__}\n"
    assert "config" in edged("--help").stdout
    assert edged("confg").returncode == 2


@pytest.mark.parametrize("command", ["run", "calibrate", "bench", "clocks"])
def test_no_settings_file_is_told_with_the_way_to_give_one(command: str) -> None:
    """Where nothing says which model, the last line says how to name a file."""
    refused = edged(command)
    assert refused.returncode == 78
    assert refused.stderr.splitlines()[-1].startswith("no settings file: give one with --config FILE")


def test_interrupt_exits_130() -> None:
    """Ctrl-C during a command ends with 130 and no traceback."""
    program = (
        "import signal, os\n"
        "from edged import cli\n"
        "@cli.app.command()\n"
        "def wait() -> None:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['wait'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_in_no_traceback(closed: str) -> None:
    """Some schedulers start programs so; a question from a closed standard input is an empty one."""
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m edged ask - --port 1 {closed}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 75
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command", ["config schema", "doctor --quick", "doctor --quick --json", "ask --help"]
)
def test_a_full_disk_is_told_in_one_line(command: str) -> None:
    """It was a traceback, and of the doctor the exit code of warnings."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "edged", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (ended.returncode, ended.stderr) == (
        74,
        "edged: what it prints cannot be written: No space left on device; make room there\n",
    )


@pytest.mark.parametrize(
    ("command", "code"), [("config schema", 74), ("config check none.toml", 78), ("nodes --port 1", 74)]
)
def test_a_log_on_a_full_disk(command: str, code: int) -> None:
    """Both streams in one file: that the line on it finds no room either ended in a traceback, and code 1."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "edged", *command.split()],
            stdout=full,
            stderr=full,
            check=False,
            timeout=60,
        )
    assert ended.returncode == code


def test_no_columns_are_no_reason_to_print_nothing() -> None:
    """With COLUMNS=0 the doctor's screen, tables and answers were empty."""
    assert edged("doctor", "--quick", COLUMNS="0").stdout == edged("doctor", "--quick").stdout != ""


IN_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("environment", "shown"), [({"PYTHONIOENCODING": "latin-1"}, "/?.toml"), (IN_ASCII, "/???.toml")]
)
def test_a_terminal_without_a_character_is_no_failure(
    tmp_path: Path, environment: dict[str, str], shown: str
) -> None:
    """What a terminal in Latin-1 or ASCII cannot show becomes question marks; the exit code stays what it was."""
    file = tmp_path / "\u8607.toml"
    file.write_text('model.path = "m.gguf"')
    checked = edged("config", "check", str(file), **environment)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines()[0].endswith(f"{shown}: ok")


def test_the_doctors_signs_in_ascii() -> None:
    """It ended with a traceback; question marks would tell nobody what is well."""
    lines = edged("doctor", "--quick", **IN_ASCII).stdout.splitlines()
    assert lines[0].startswith("+ board"), lines
    assert "?" not in {line[0] for line in lines}


def test_standard_input_that_is_no_utf_8_is_told() -> None:
    """In words, before anything is sent."""
    asked = subprocess.run(
        [sys.executable, "-m", "edged", "ask", "-", "--port", "1"],
        input=b"caf\xe9?",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert asked.returncode == 2
    assert b"standard input is not UTF-8: byte 4 is 0xe9" in asked.stderr


@pytest.mark.parametrize("wrong", [("ask", "x", "--name", "a b"), ("events", "--prefix", "/edged")])
def test_a_name_that_no_topic_takes_is_wrong_usage(wrong: tuple[str, ...]) -> None:
    """Its exit code was that of a refusal."""
    ended = edged(*wrong)
    assert (ended.returncode, wrong[-1] in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize(
    ("option", "content", "code", "words"),
    [
        ("--password-file", "hunter2".encode("utf-16"), 2, "password is not UTF-8"),
        ("--schema", b'\xef\xbb\xbf{"type": "integer"}', 75, "nothing listens there"),
    ],
)
def test_a_file_that_windows_wrote(
    tmp_path: Path, option: str, content: bytes, code: int, words: str
) -> None:
    """Its byte order mark does no harm, and another encoding is told with the file's name."""
    (tmp_path / "password").write_bytes(content)
    asked = subprocess.run(
        [sys.executable, "-m", "edged", "ask", "x", "--port", "1", "--username", "u", option, "password"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CONFIGS.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert asked.returncode == code, asked.stderr
    assert words in asked.stderr


def test_only_the_asked_command_is_imported() -> None:
    """One command does not wait for what another imports."""
    program = (
        "import sys\n"
        "from edged import cli\n"
        "cli.load_commands(['config', 'schema'])\n"
        "print(sorted(name for name in sys.modules if name.startswith('edged.cli.')))\n"
        "print({'llama_cpp', 'paho', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "['edged.cli.config']\nset()\n"
