"""The settings: what is accepted, from where, and what a mistake reads like."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from edged.errors import SettingsError
from edged.settings import Settings, load, markdown_table, table, toml_text
from edged.settings.network import credential
from edged.settings.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGS = Path(__file__).parents[2] / "configs"
PROFILES = ("demo", "generic", "rk3588", "rpi4", "rpi5")
LEAST = '[model]\npath = "m.gguf"\n'
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 - only here

    for name in list(os.environ):
        if name.startswith("EDGED_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "edged.toml"


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def complaint(file: Path | None) -> str:
    """What `load` says about a file that it refuses."""
    with pytest.raises(SettingsError) as caught:
        load(file)
    return str(caught.value)


def written(file: Path, text: str) -> Path:
    """The file, holding `text`."""
    file.write_text(text)
    return file


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_loads(profile: str) -> None:
    """Every profile in configs/ is accepted as it stands."""
    settings = load(CONFIGS / f"{profile}.toml")
    assert settings.model.system_prompt == ""
    assert settings.model.path.name.endswith("Q4_0.gguf")


def test_no_profile_is_left_untested() -> None:
    """configs/ holds the profiles of the test above and no other."""
    assert sorted(path.stem for path in CONFIGS.glob("*.toml")) == list(PROFILES)


def test_profiles_fit_their_boards() -> None:
    """The Pi 5 sets decode and prefill threads apart, the Pi 4 takes less, the demo stays local."""
    pi5, pi4 = (load(CONFIGS / f"{name}.toml").engine for name in ("rpi5", "rpi4"))
    assert (pi5.decode_threads, pi5.prefill_threads) == (2, 4)
    assert (pi4.slots, pi4.context_max, pi4.batch_tokens) == (2, 1536, 64)
    rk = load(CONFIGS / "rk3588.toml").engine
    assert (rk.slots, rk.context_max, rk.cores) == (4, 2048, None)
    demo = load(CONFIGS / "demo.toml")
    assert (demo.mqtt.host, demo.mqtt.port, demo.node.id) == ("127.0.0.1", 18830, "demo")
    assert demo.paths.state == CONFIGS / "../.cache/demo/state"


def test_defaults(file: Path) -> None:
    """A file with a model alone gives the documented defaults and the host's name."""
    settings = load(written(file, LEAST))
    assert (settings.mqtt.port, settings.mqtt.session_expiry_s) == (1883, 604_800)
    assert (settings.engine.context_max, settings.engine.context_min) == (2048, 1024)
    assert settings.limits.payload_bytes == 65_536
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", settings.node.id)


@pytest.mark.parametrize(
    ("text", "key", "accepted"),
    [
        (
            "[mqtt]\nport = 70000",
            "mqtt.port",
            "input should be less than or equal to 65535 (integer, 1 to 65535)",
        ),
        ("[mqtt]\nport = 0", "mqtt.port", "integer, 1 to 65535"),
        ('[mqtt]\nport = "1883"', "mqtt.port", "integer, 1 to 65535"),
        ("[engine]\nslots = true", "engine.slots", "integer, 1 to 64"),
        ("[engine]\nslots = 1.5", "engine.slots", "integer, 1 to 64"),
        ("[engine]\nhang_s = nan", "engine.hang_s", "number, 5 to 3600"),
        ("[engine]\nhang_s = inf", "engine.hang_s", "number, 5 to 3600"),
        ("[engine]\nlock_memory = 1", "engine.lock_memory", "true or false"),
        ('[engine]\nkv_type = "f32"', "engine.kv_type", '"f16", "q8_0"'),
        (
            '[engine]\nkv_type = "q8_0"\nflash_attention = "off"',
            "engine.flash_attention",
            '"auto" and "on" are accepted with engine.kv_type "q8_0"',
        ),
        ('[engine]\ncores = "7-4"', "engine.cores", "rising ranges"),
        ('[engine]\ncores = "all"', "engine.cores", "rising ranges"),
        ('[node]\nid = "a/b"', "node.id", "1 to 64 of A-Z a-z 0-9 _ . -"),
        ('[node]\nid = "a\\n"', "node.id", "1 to 64 of A-Z a-z 0-9 _ . -"),
        ('[node]\npools = ["ok", "no#"]', "node.pools", "list, each 1 to 64 of"),
        ('[node]\npools = "hall"', "node.pools", "list, each 1 to 64 of"),
        ('[node]\nprefix = "edged/+"', "node.prefix", "and / between levels"),
        ('[node]\nprefix = "edged/"', "node.prefix", "and / between levels"),
        ('[mqtt]\nhost = "two words"', "mqtt.host", "host name or address alone"),
        ('[mqtt]\nhost = "mqtt://broker.lan"', "mqtt.host", "no mqtt://"),
        ('[mqtt]\nhost = "broker.lan:8883"', "mqtt.host", "no mqtt://, port"),
        ('[mqtt]\nhost = "192.0.2.1:8883"', "mqtt.host", "no mqtt://, port"),
        ('[mqtt]\nhost = "[2001:db8::1]"', "mqtt.host", "brackets"),
        ('[mqtt]\nhost = "broker..lan"', "mqtt.host", "1 to 63 characters between its dots"),
        (f'[http]\nhost = "{64 * "a"}.lan"', "http.host", "1 to 63 characters between its dots"),
        ("[mqtt.tls]", "mqtt.tls.ca", "missing"),
        ("mqtt = 5", "mqtt", "a section, written [mqtt], is accepted"),
        ("[[mqtt]]\nport = 1", "mqtt", "a section, written [mqtt], is accepted"),
        ('[log]\nlevel = "loud"', "log.level", "one of"),
        ("[health]\ninterval_s = 0", "health.interval_s", "number, 1 to 3600"),
        ("[paths]\nstate = 5", "paths.state", "path"),
        ('[paths]\nstate = ""', "paths.state", "not empty"),
        ('[model]\npath = "a\\u0000"\n#', "model.path", "without NUL"),
        ('[paths]\nstate = "~/edged"', "paths.state", "~ is not expanded"),
        ('[mqtt]\npassword_file = "~/secret"', "mqtt.password_file", "~ is not expanded"),
        ('"\\u00ad\\n" = 1', "\\xad\\n", "unknown key"),
    ],
)
def test_bad_value(file: Path, text: str, key: str, accepted: str) -> None:
    """A value that is not accepted gives one line with the file, the key and what is accepted."""
    text = text if "[model]" in text else f"{text}\n{LEAST}"
    line = complaint(written(file, text))
    assert "\n" not in line
    assert line.startswith(f"{file}: {key}: ")
    assert accepted in line


@pytest.mark.parametrize(
    "host",
    [
        "broker",
        "broker.lan.",
        "my_broker",
        "bücher.example",
        "192.0.2.10",
        "::",
        "::1",
        "2001:db8::10",
        "fe80::1%eth0",
        "::ffff:192.0.2.10",
        "2001:db8:1:2:3:4:5:6",
    ],
)
def test_hosts(file: Path, host: str) -> None:
    """Names and addresses as the resolver takes them, those of IPv6 bare."""
    assert load(written(file, f'[mqtt]\nhost = "{host}"\n{LEAST}')).mqtt.host == host


CONTRADICTIONS = [
    ("[heat]\nhot_c = 6.0\ntarget_c = 4.0", "heat.target_c", "more than heat.hot_c (6)"),
    ("[heat]\ntarget_c = 1.0", "heat.target_c", "more than heat.hot_c (1)"),
    ("[heat]\ntarget_c = 20.0", "heat.warm_c", "more than heat.target_c (20)"),
    ("[heat]\nwarm_c = 2.5", "heat.warm_c", "more than heat.target_c (2.5)"),
    ("[heat]\ntrip_c = 42.0", "heat.trip_c", "43 or more is accepted with heat.warm_c (15)"),
    ("[heat]\ntrip_c = 60.0\nwarm_c = 34.0", "heat.trip_c", "62 or more"),
    ("[heat]\ntrip_c = 60.0\nhysteresis_c = 20.0\nwarm_c = 16.0", "heat.trip_c", "heat.hysteresis_c (20)"),
    ("[engine]\ncontext_max = 512", "engine.context_min", "at most engine.context_max (512)"),
    ('[engine]\ncores = "4-5"\ndecode_threads = 4', "engine.cores", "engine.decode_threads (4) or more"),
    ('[engine]\ncores = "0,2"\nprefill_threads = 3', "engine.cores", "engine.prefill_threads (3) or more"),
    ("[limits]\nqueue_jobs = 8", "limits.client_jobs", "at most limits.queue_jobs (8)"),
    ("[limits]\ndeadline_max_s = 60", "limits.deadline_default_s", "at most limits.deadline_max_s (60)"),
    (
        "[limits]\npayload_bytes = 65536\nqueue_bytes = 1024",
        "limits.queue_bytes",
        "at least limits.payload_bytes",
    ),
    ("[sessions]\nper_client = 300", "sessions.total", "at least sessions.per_client (300)"),
    ('[upstream]\nurl = "http://gpu/v1"', "upstream.model", "the name of a model"),
    *(
        (f'[upstream]\nmodel = "m"\nurl = "http://{host}/v1"', "upstream.url", "an address with a host")
        for host in ("[::1", "[", ":80", "gpu:http", "gpu:65536", "gpu:0")
    ),
    ('[mqtt]\npassword_file = "a\\u0000b"', "mqtt.password_file", "without NUL"),
    ('[http]\nenabled = true\nhost = "0.0.0.0"', "http.key_file", "loopback"),
    ('[mqtt.tls]\nca = "ca.pem"\ncert = "c.pem"', "mqtt.tls.key", "cert and key are given together"),
]
"""Settings of which each is accepted, but not beside the other."""


@pytest.mark.parametrize(("text", "key", "accepted"), CONTRADICTIONS)
def test_contradictions(file: Path, text: str, key: str, accepted: str) -> None:
    """Two settings that contradict each other are refused: one line names the key and the other's value."""
    line = complaint(written(file, f"{text}\n{LEAST}"))
    assert "\n" not in line
    assert line.startswith(f"{file}: {key}: ")
    assert accepted in line


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("[mqtt]\nprot = 1", "mqtt.prot", "did you mean mqtt.port?"),
        ("[mqt]\nport = 1", "mqt", "did you mean mqtt?"),
        ("[node]\nslots = 1", "node.slots", "did you mean engine.slots?"),
        ("[engine]\nCONTEXT_MAX = 1024", "engine.CONTEXT_MAX", "did you mean engine.context_max?"),
        ('[mqtt.tls]\nca = "x"\ncafile = "y"', "mqtt.tls.cafile", "did you mean mqtt.tls.ca"),
        ("[health]\nzzzzz = 1", "health.zzzzz", "accepted are interval_s"),
        ('_secrets_dir = "x"', "_secrets_dir", "accepted are node, mqtt"),
    ],
)
def test_unknown_key(file: Path, text: str, place: str, hint: str) -> None:
    """A key that does not exist is an error, and the nearest one that does is named."""
    text = f"{text}\n{LEAST}"
    assert complaint(written(file, text)).startswith(f"{file}: {place}: unknown key; {hint}")


def test_unknown_key_may_hold_a_secret(file: Path) -> None:
    """The value of an unknown key is not repeated."""
    assert "hunter2" not in complaint(written(file, f'mqtt.password = "hunter2"\n{LEAST}'))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('upstream.url = "http://me:hunter2@gpu/"', "'http://***@gpu/'"),
        ('mqtt.host = "mqtt://me:hunter/2@broker"', "'mqtt://***@broker'"),
        ('mqtt.host = "me:hunter2@broker"', "'***@broker'"),
    ],
)
def test_an_address_may_hold_a_secret(file: Path, line: str, shown: str) -> None:
    """What is refused at a reload stands in the log, and in an event for all who may hear those."""
    said = complaint(written(file, f"{line}\n{LEAST}"))
    assert said.startswith(f"{file}: {line.partition(' ')[0]}: {shown} is not accepted")


def test_all_mistakes_at_once(file: Path) -> None:
    """Each mistake has a line of its own that stands alone."""
    text = "[mqtt]\nprot = 1\nport = 0\n[engine]\nslots = 0\n"
    lines = complaint(written(file, text)).split("\n")
    assert [line.split(": ")[1] for line in lines] == ["mqtt.prot", "mqtt.port", "model.path", "engine.slots"]
    assert all(line.startswith(f"{file}: ") for line in lines)


def test_model_path_is_required(file: Path) -> None:
    """Without a model the line names the key, and its variable where there is no file."""
    assert complaint(written(file, "")) == f"{file}: model.path: missing; accepted: path"
    assert complaint(None) == "environment: model.path (EDGED_MODEL__PATH): missing; accepted: path"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[mqtt]\nport = \n", "not TOML: Invalid value (at line 2"),
        (b"[mqtt]\nport = 1\nport = 2\n", "(at line 3"),
        (b"[mqtt", "(at line 1, the end)"),
        (b"[mqtt]\nhost = '\xff'\n", "line 2: not UTF-8"),
        (b"x = " + b"[" * 100_000, "nested too deep"),
        (b"#" * 1_100_000, "longer than 1048576 bytes"),
        (b"x = " + b"9" * 5000, "not TOML: "),
    ],
)
def test_unreadable_text(file: Path, raw: bytes, words: str) -> None:
    """A file that is no TOML gives one line with the file, the place in it and what is wrong."""
    file.write_bytes(raw)
    line = complaint(file)
    assert line.startswith(f"{file}: ")
    assert words in line
    assert "\n" not in line


def test_no_such_file(file: Path) -> None:
    """A missing file, a folder and an impossible name give one line each."""
    assert complaint(file) == f"{file}: cannot be read: No such file or directory; a TOML file is accepted"
    assert "cannot be read: Is a directory" in complaint(file.parent)
    assert complaint(Path("a\0\nb")).startswith("a\\x00\\nb: cannot be read")


def test_byte_order_mark(file: Path) -> None:
    """A byte order mark, which Windows editors write, does no harm."""
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert load(file).model.path.name == "m.gguf"


def test_relative_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths start at the file's folder, in the environment at the working directory."""
    text = '[model]\npath = "models/m.gguf"\n[mqtt.tls]\nca = "/etc/ca.pem"\n[paths]\nstate = "../state"\n'
    settings = load(written(file, text))
    assert settings.model.path == file.parent / "models/m.gguf"
    assert settings.paths.state == file.parent / "../state"
    assert settings.mqtt.tls is not None
    assert settings.mqtt.tls.ca == Path("/etc/ca.pem")
    monkeypatch.setenv("EDGED_MODEL__PATH", "here.gguf")
    assert load(file).model.path == Path("here.gguf")


def test_relative_paths_outlive_chdir(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named relatively gives absolute paths, so that a later change of directory moves nothing."""
    written(file, LEAST)
    monkeypatch.chdir(file.parent)
    assert load(Path(file.name)).model.path == file.parent / "m.gguf"


def test_environment_overrides(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables win over the file, one key at a time, and are turned into each key's type."""
    text = '[mqtt]\nport = 1000\nhost = "broker"\n[engine]\ndecode_threads = 3\n' + LEAST
    for name, value in {
        "MQTT__PORT": "1884",
        "MQTT__TLS__CA": "/ca.pem",
        "NODE__POOLS": "a, b",
        "MQTT__REPLY_PREFIXES": "",
        "ENGINE__DECODE_THREADS": "",
        "ENGINE__HANG_S": "7.5",
        "ENGINE__LOCK_MEMORY": "yes",
        "MODEL__SHA256": "AB" * 32,
        "CONFIG": "elsewhere.toml",
    }.items():
        monkeypatch.setenv(f"EDGED_{name}", value)
    settings = load(written(file, text))
    assert (settings.mqtt.port, settings.mqtt.host) == (1884, "broker")
    assert settings.mqtt.tls is not None
    assert settings.mqtt.tls.ca == Path("/ca.pem")
    assert settings.node.pools == ("a", "b")
    assert settings.mqtt.reply_prefixes == ()
    assert settings.engine.decode_threads is None
    assert settings.engine.hang_s == 7.5
    assert settings.engine.lock_memory is True
    assert settings.model.sha256 == "ab" * 32


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("EDGED_MQTT__PORT", "70000", "mqtt.port: 70000 is not accepted: input should be less than"),
        ("EDGED_MQTT__PORT", "many", "mqtt.port: 'many' is not accepted: "),
        ("EDGED_MQTT__PORT", "", "mqtt.port: '' is not accepted: "),
        ("EDGED_MODEL__SYSTEM_PROMPT", "\udcff", "model.system_prompt: '\\udcff' is not accepted: "),
        ("EDGED_ENGINE__LOCK_MEMORY", "maybe", "engine.lock_memory: 'maybe' is not accepted: "),
        ("EDGED_ENGINE__HANG_S", "1e999", "engine.hang_s: '1e999' is not accepted: "),
        ("EDGED_NODE__POOLS", "a,b c", "node.pools: 'b c' is not accepted; accepted: "),
        ("EDGED_MQTT__PROT", "1", "unknown environment variable; did you mean EDGED_MQTT__PORT?"),
        ("EDGED_MQTT", "{}", "unknown environment variable"),
        ("EDGED_", "1", "unknown environment variable"),
    ],
)
def test_bad_variable(file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    """A variable that is wrong or unknown gives one line that names the variable, not the file."""
    monkeypatch.setenv(name, value)
    line = complaint(written(file, LEAST))
    assert line.startswith(f"{name}: {words}")
    assert "\n" not in line


def test_a_list_in_a_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is written as in a file is told how; in a file it is right."""
    monkeypatch.setenv("EDGED_NODE__POOLS", '["a", "b"]')
    assert complaint(written(file, LEAST)).splitlines()[0].endswith("; in a variable: separated by commas")
    monkeypatch.delenv("EDGED_NODE__POOLS")
    assert "commas" not in complaint(written(file, f'{LEAST}[node]\npools = "a"\n'))


def test_frozen(file: Path) -> None:
    """Settings cannot be changed once they are loaded."""
    settings = load(written(file, LEAST))
    with pytest.raises(ValidationError):
        settings.mqtt.port = 1


def test_core_set(file: Path) -> None:
    """Lists and ranges of cores become the set of their numbers."""
    text = LEAST + '[engine]\ncores = "0,4-6"\n'
    assert load(written(file, text)).engine.core_set() == frozenset({0, 4, 5, 6})
    assert load(written(file, LEAST)).engine.core_set() is None


@pytest.mark.parametrize(
    ("raw", "password"),
    [
        (b"correct horse\n", "correct horse"),
        (b"two\n\n", "two\n"),
        (b"\xef\xbb\xbfbattery\r\n", "battery"),
        (b"", ""),
    ],
)
def test_password(file: Path, raw: bytes, password: str) -> None:
    """The password is the file's content less one final newline, and stands nowhere in the settings."""
    (file.parent / "secret").write_bytes(raw)
    settings = load(written(file, f'mqtt.password_file = "secret"\n{LEAST}'))
    assert settings.mqtt.password() == password
    if password:
        assert password not in repr(settings) + toml_text(settings) + settings.model_dump_json()


def test_password_from_credentials(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is looked up in systemd's credentials first, then beside the settings file."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (file.parent / "mqtt-password").write_text("beside")
    written(file, f'mqtt.password_file = "mqtt-password"\n{LEAST}')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert load(file).mqtt.password() == "beside"
    (credentials / "mqtt-password").write_text("credential\n")
    assert load(file).mqtt.password() == "credential"
    monkeypatch.setenv("EDGED_MQTT__PASSWORD_FILE", "mqtt-password")
    assert load(file).mqtt.password() == "credential"


def test_credentials_without_the_service(tmp_path: Path) -> None:
    """What root asks on the board finds the unit's credentials where the unit takes them from."""
    store = tmp_path / "credstore"
    store.mkdir()
    name = Path("mqtt_password")
    assert credential(name, tmp_path, store) == tmp_path / name
    (store / "edged.mqtt_password").write_text("stored")
    assert credential(name, tmp_path, store) == store / "edged.mqtt_password"
    (tmp_path / name).write_text("beside")
    assert credential(name, tmp_path, store) == tmp_path / name


def test_credentials_that_may_not_be_seen(tmp_path: Path) -> None:
    """Where the store is closed to an account, a file that is nowhere else may be there: the doctor failed."""
    store, there = tmp_path / "credstore", tmp_path / "there"
    store.mkdir()
    there.touch()
    code = (
        "import sys; from pathlib import Path; from edged.settings.network import hidden; "
        "store, *files = map(Path, sys.argv[1:]); print([hidden(file, store) for file in files])"
    )
    wrapper = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()

    def asked(where: Path) -> str:
        command = [*wrapper, sys.executable, "-c", code, where, tmp_path / "mqtt_password", there]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert asked(store) == asked(tmp_path / "none") == "[False, False]"
    store.chmod(0)
    assert asked(store) == "[True, False]"
    store.chmod(0o700)


def test_certificates_as_credentials(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare names of TLS files are looked for in systemd's credentials first, then beside the file."""
    credentials = file.parent / "credentials"
    credentials.mkdir()
    (credentials / "mqtt_ca").write_text("ca")
    text = f'mqtt.tls = {{ ca = "mqtt_ca", cert = "mqtt_cert", key = "/etc/own.key" }}\n{LEAST}'
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    tls = load(written(file, text)).mqtt.tls
    assert tls is not None
    assert (tls.ca, tls.cert) == (credentials / "mqtt_ca", file.parent / "mqtt_cert")
    assert tls.key == Path("/etc/own.key")


def test_the_key_of_https_as_a_credential(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with no account of its own is given a private key that others may not read in no other way."""
    credentials = file.parent / "credentials"
    credentials.mkdir()
    for name in ("http_tls_cert", "http_tls_key"):
        (credentials / name).touch()
    text = f'[http]\ntls = {{ cert = "http_tls_cert", key = "http_tls_key" }}\n{LEAST}'
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    tls = load(written(file, text)).http.tls
    assert tls is not None
    assert (tls.cert, tls.key) == (credentials / "http_tls_cert", credentials / "http_tls_key")


def test_a_node_that_is_asked_over_http_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP is on and no broker is named, neither in the file nor in the environment."""
    text = f"[http]\nenabled = true\n{LEAST}"
    assert load(written(file, text)).http_alone
    assert not load(written(file, LEAST)).http_alone
    assert not load(written(file, f'[mqtt]\nhost = "127.0.0.1"\n{text}')).http_alone
    monkeypatch.setenv("EDGED_MQTT__HOST", "127.0.0.1")
    assert not load(written(file, text)).http_alone


def test_a_key_in_place_of_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted where the file's name belongs it is too long for one: one line, at a reload too, and no traceback."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
    settings = load(written(file, f'mqtt.password_file = "{"x" * 300}"\n{LEAST}'))
    with pytest.raises(SettingsError, match=r"^mqtt\.password_file: .* File name too long; ") as caught:
        settings.mqtt.password()
    assert "\n" not in str(caught.value)


def test_password_that_cannot_be_read(file: Path) -> None:
    """A missing or binary password file gives one line with key and file, and none of its content."""
    settings = load(written(file, f'mqtt.password_file = "secret"\n{LEAST}'))
    with pytest.raises(
        SettingsError, match=r"^mqtt\.password_file: '.*/secret': No such file or directory; "
    ):
        settings.mqtt.password()
    (file.parent / "secret").write_bytes(b"hunter2\xff")
    with pytest.raises(SettingsError, match="not UTF-8") as caught:
        settings.mqtt.password()
    assert "hunter2" not in str(caught.value)
    assert load(written(file, LEAST)).mqtt.password() is None


def test_a_secret_is_a_small_file(file: Path) -> None:
    """A pipe is not waited for, what never ends not read, and a device not even opened: one line instead."""
    os.mkfifo(file.parent / "pipe")
    with (file.parent / "large").open("wb") as large:
        large.truncate(1 << 40)
    cases = {"pipe": "no regular file", "/dev/full": "no regular file", ".": "no regular file"}
    for name, reason in {**cases, "large": "longer than 65535 bytes"}.items():
        settings = load(written(file, f'mqtt.password_file = "{name}"\n{LEAST}'))
        with pytest.raises(SettingsError, match=rf"^mqtt\.password_file: '.*': {reason}; accepted: "):
            settings.mqtt.password()
    (file.parent / "secret").write_bytes(b"x" * 65_535)
    assert load(written(file, f'mqtt.password_file = "secret"\n{LEAST}')).mqtt.password() == "x" * 65_535


@pytest.mark.parametrize("profile", PROFILES)
def test_toml_text_loads_again(profile: str, file: Path) -> None:
    """What `toml_text` writes is read back as the same settings."""
    settings = load(CONFIGS / f"{profile}.toml")
    assert load(written(file, toml_text(settings))) == settings


def test_every_setting_is_described() -> None:
    """Each key has its type, default and meaning, in the table and in the schema."""
    rows = table()
    assert len(rows) == len({(row.section, row.key) for row in rows})
    assert all(row.type not in {"", "value"} and row.default and row.meaning.endswith(".") for row in rows)
    text = markdown_table()
    assert text.count("\n") == len(rows) + 2
    assert (
        "| `mqtt.port` | integer, 1 to 65535 | `1883` | Port of the broker; 8883 is usual with TLS. |" in text
    )
    assert "| `node.id` | 1 to 64 of A-Z a-z 0-9 _ . - | the host name |" in text
    schema = Settings.model_json_schema()["$defs"]
    assert all("description" in field for part in schema.values() for field in part["properties"].values())


def values() -> st.SearchStrategy[Any]:
    """Anything TOML can hold."""
    flat = st.one_of(
        st.booleans(),
        st.integers(),
        st.integers(min_value=10**25),
        st.floats(),
        st.text(st.characters(codec="utf-8")),
    )
    return st.recursive(flat, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


def toml(value: Any) -> str:
    """`value` in TOML's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value).replace("\x7f", "\\u007f")


def keys() -> Iterator[tuple[str, str]]:
    """Section and key of every setting outside the nested section."""
    return ((row.section, row.key) for row in table() if row.section != "mqtt.tls")


def judge(file: Path, start: str | None = None) -> None:
    """Loads `file`: settings, or complaints of which each line names its place and is plain to read."""
    lines: list[str] = []
    try:
        load(file)
    except SettingsError as error:
        lines = str(error).split("\n")
    assert all(line.startswith(start or f"{file}: ") and line.isprintable() for line in lines)


@given(
    entries=st.dictionaries(st.sampled_from(sorted(keys())), values(), max_size=4),
    strange=st.dictionaries(st.text(st.characters(codec="utf-8")), values(), max_size=2),
)
def test_any_values(folder: Path, entries: dict[tuple[str, str], Any], strange: dict[str, Any]) -> None:
    """Whatever values and keys a file holds, it is accepted or refused with SettingsError, nothing else."""
    lines = [f"{json.dumps(key)} = {toml(value)}" for key, value in strange.items()]
    lines += [f"{section}.{key} = {toml(value)}" for (section, key), value in entries.items()]
    file = folder / "values.toml"
    file.write_text("\n".join(lines).replace("\x7f", ""), encoding="utf-8", errors="replace")
    judge(file)


@given(raw=st.binary(max_size=200), place=st.integers(0, 600))
def test_any_bytes(folder: Path, raw: bytes, place: int) -> None:
    """A profile overwritten anywhere by anything is accepted or refused with SettingsError, nothing else."""
    good = (CONFIGS / "rpi4.toml").read_bytes()
    file = folder / "bytes.toml"
    file.write_bytes(good[:place] + raw + good[place + len(raw) :])
    judge(file)


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@example("0\x1f")
def test_any_variable(folder: Path, text: str) -> None:
    """Whatever text a variable holds, it is accepted or refused with SettingsError that names it."""
    file = folder / "variable.toml"
    file.write_text(LEAST)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MQTT__PORT", "ENGINE__HANG_S", "NODE__POOLS", "ENGINE__CORES", "MODEL__CHAT_TEMPLATE"):
            patch.setenv(f"EDGED_{name}", text)
        judge(file, "EDGED_")


@pytest.mark.parametrize(
    ("url", "in_clear"),
    [
        ("http://gpu.example:8000/v1", True),
        ("http://192.0.2.1/v1", True),
        ("https://gpu.example/v1", False),
        ("http://127.0.0.1:8001/v1", False),
        ("http://localhost:8001/v1", False),
        ("http://[::1]:8001/v1", False),
    ],
)
def test_a_key_in_clear_is_known(url: str, in_clear: bool) -> None:  # noqa: FBT001 - a table
    """Without TLS it can be read on the way, unless there is no way."""
    assert Upstream(url=url, model="big").in_clear is in_clear


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As sops makes one for `edged run`: at a reload nobody writes into it, and the node waited for ever."""
    pipe = tmp_path / "edged.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(LEAST,))
    writer.start()
    assert load(pipe).model.path == tmp_path / "m.gguf"
    writer.join()
    with pytest.raises(SettingsError, match=r"edged\.toml: a pipe, which is read once; a file is read again"):
        load(pipe, again=True)
    pipe.unlink()
    pipe.write_text(LEAST)
    assert load(pipe, again=True) == load(pipe)
