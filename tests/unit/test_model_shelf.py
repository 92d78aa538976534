"""`edged model` over a real HTTP server on loopback and the real small model."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import pty
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import Authority

from edged.errors import ModelError
from edged.models.fetch import SPARE_BYTES, fetch
from edged.models.shelf import CURRENT, Shelf

ROOT = Path(__file__).parents[2]
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
"""The cursor, as xterm has it."""
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; breaks a connection off after `cut` bytes where that is set."""

    content = b""
    tag = '"one"'
    cut: int | None = None
    length: int | str | None = None
    """That it tells in place of the true one; 0 for none."""
    deaf = False
    """Sends all of it when asked for a rest, and calls that a part, as some proxies do."""
    asked: list[str | None]

    @property
    def url(self) -> str:
        """Of the model."""
        return f"http://127.0.0.1:{self.server_port}/files/small.gguf"


class Handler(http.server.BaseHTTPRequestHandler):
    """Ranges as RFC 9110 has them, for one range behind a beginning."""

    server: Server

    def do_GET(self) -> None:
        """Answer with all, or what follows a beginning."""
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        if self.path not in {"/files/small.gguf", "/moved.gguf"}:
            self.send_error(404)
            return
        if self.path == "/moved.gguf":
            self.send_response(302)
            self.send_header("Location", "http://[nowhere/small.gguf")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.headers["If-Range"] != server.tag:
            start = 0
        if start >= len(server.content):
            self.send_error(416)
            return
        asked, start = start, 0 if server.deaf else start
        rest = server.content[start:]
        self.send_response(206 if asked else 200)
        if asked:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        if server.length != 0:
            self.send_header("Content-Length", str(server.length or len(rest)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(rest if server.cut is None else rest[: server.cut])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
        """Silent."""


@pytest.fixture
def server(small_model: Path) -> Iterator[Server]:
    """With the small model."""
    one = Server(("127.0.0.1", 0), Handler)
    one.content, one.asked = small_model.read_bytes(), []
    thread = threading.Thread(target=one.serve_forever, args=(0.05,))
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty one."""
    return Shelf(tmp_path / "models")


def quiet(_done: int, _total: int | None) -> None:
    """Nobody looks."""


def begun(*arguments: str, folder: Path, columns: str | None = "80") -> subprocess.Popen[str]:
    """A command that runs."""
    own = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.Popen(
        [sys.executable, "-m", "edged", "model", *arguments],
        env=own | {"EDGED_MODELS": str(folder)} | ({} if columns is None else {"COLUMNS": columns}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def edged(*arguments: str, folder: Path, columns: str | None = "80") -> subprocess.CompletedProcess[str]:
    """The command line."""
    with begun(*arguments, folder=folder, columns=columns) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_a_model_comes_whole_and_is_known_by_its_hash(server: Server, shelf: Shelf) -> None:
    """From a URL, with its hash beside it as sha256sum reads it; nothing else stays in the folder."""
    digest = hashlib.sha256(server.content).hexdigest()
    seen: list[tuple[int, int | None]] = []
    added = shelf.add(server.url, lambda *step: seen.append(step), sha256=digest)
    assert (added.name, added.sha256, added.bytes) == ("small.gguf", digest, len(server.content))
    assert added.shape is not None
    assert added.shape.quantisation == "Q4_0"
    assert seen[-1] == (len(server.content), len(server.content))
    command = ["sha256sum", "--check", "--status", "small.gguf.sha256"]
    checked = subprocess.run(command, cwd=shelf.folder, check=False)
    assert checked.returncode == 0
    assert sorted(path.name for path in shelf.folder.iterdir()) == [
        ".lock",
        "small.gguf",
        "small.gguf.sha256",
    ]
    with pytest.raises(ModelError, match="stands on the shelf already"):
        shelf.add(server.url, quiet)


def test_an_address_with_a_password(server: Server, shelf: Shelf) -> None:
    """It was taken for a host's name that nobody knows, and the password was shown, and kept beside the models."""
    with pytest.raises(ModelError) as refused:
        shelf.add(server.url.replace("//", "//me:hunter2@"), quiet)
    assert "with curl" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert not list(shelf.folder.glob(".*.from"))


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, shelf: Shelf) -> None:
    """Each try asks for what is missing, and the file is right in the end."""
    server.cut = len(server.content) // 3 + 1
    added = Shelf(shelf.folder, pause_s=0.01).add(server.url, quiet)
    assert added.sha256 == hashlib.sha256(server.content).hexdigest()
    assert server.asked[0] is None
    assert server.asked[1:] == [f"bytes={server.cut * n}-" for n in (1, 2)]


def test_other_bytes_than_were_asked_for_are_not_put_behind_what_is_there(
    server: Server, shelf: Shelf
) -> None:
    """A server that sends all of it for a rest: a part and a whole made a model, whose hash verified."""
    part = shelf.folder / ".small.gguf.part"
    shelf.folder.mkdir()
    part.write_bytes(server.content[:1000])
    part.with_name(f"{part.name}.from").write_text(f"{server.url}\n{server.tag}\n")
    server.deaf = True
    added = Shelf(shelf.folder, pause_s=0.01).add(server.url, quiet)
    assert added.sha256 == hashlib.sha256(server.content).hexdigest()
    assert server.asked == ["bytes=1000-", None]


@pytest.mark.parametrize("length", ["many", "-5", "9" * 5000])
def test_a_length_that_is_none_is_not_believed(server: Server, shelf: Shelf, length: str) -> None:
    """The model comes all the same: what it lacks its own head tells."""
    server.length = length
    assert shelf.add(server.url, quiet).bytes == len(server.content)


def test_an_address_that_is_none_is_said_at_once(server: Server, shelf: Shelf) -> None:
    """Typed, or what the server leads to: a sentence, not Python's error, and no second try."""
    host = server.url.partition("/files")[0]
    for address in ("http://[bad/x.gguf", f"{host}/ä.gguf", f"{host}/a b.gguf", f"{host}/moved.gguf"):
        with pytest.raises(ModelError, match="no address"):
            shelf.add(address, quiet, name="x.gguf")
    assert server.asked == [None], "the last one alone"


@pytest.mark.parametrize(
    ("expired", "known", "words"),
    [(True, True, "certificate has expired; set this machine's clock"), (False, False, "SSL_CERT_FILE")],
    ids=["a clock that is ahead", "a proxy's"],
)
def test_a_certificate_that_is_not_accepted(  # noqa: PLR0917 - fixtures
    server: Server,
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expired: bool,  # noqa: FBT001 - a table
    known: bool,  # noqa: FBT001
    words: str,
) -> None:
    """Said at once: it was tried for 20 s, and the same command was to go on, also where the clock was wrong."""
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca")
    pair = authority.server(expired=expired)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
    with pytest.raises(ModelError, match=f"its certificate is not accepted: .*{words}"):
        shelf.add(server.url.replace("http:", "https:"), quiet)


def test_a_link_in_the_folder_leads_to_no_other_file(small_model: Path, shelf: Shelf) -> None:
    """Root adds to a folder of the service, whose account could have put links there before."""
    shelf.folder.mkdir()
    other = shelf.folder.parent / "shadow"
    other.write_text("root")
    source = str(small_model)
    other.with_name("from").write_text(f"{source}\n")
    for name in (".small.gguf.part", "small.gguf.sha256", ".small.gguf.part.q4_0.part"):
        (shelf.folder / name).symlink_to(other)
    (shelf.folder / ".small.gguf.part.from").symlink_to(other.with_name("from"))
    shelf.add(source, quiet, name="small.gguf", to_q4_0=True)
    assert other.read_text() == "root"
    assert other.with_name("from").read_text() == f"{source}\n"
    (shelf.folder / ".lock").unlink()
    (shelf.folder / ".lock").symlink_to(other)
    with pytest.raises(ModelError, match="symbolic links"):
        shelf.add(source, quiet, name="other.gguf")
    assert other.read_text() == "root"


@pytest.mark.parametrize("length", ["tells", "lies", "is silent"])
def test_the_disk_is_not_filled(server: Server, tmp_path: Path, length: str) -> None:
    """Whatever the server says of the length: what must stay free stays free, for the journal of a node."""
    server.length = {"tells": None, "lies": 10**16, "is silent": 0}[length]
    spare = SPARE_BYTES if length == "lies" else 10**16
    with pytest.raises(ModelError, match=r"MiB are free and .* MiB needed"):
        fetch(server.url, tmp_path / "part", quiet, pause_s=0, spare_bytes=spare)
    assert (tmp_path / "part").stat().st_size == 0


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, shelf: Shelf) -> None:
    """The beginning of one file and the end of another make no model."""
    shelf.folder.mkdir()
    part = shelf.folder / ".small.gguf.part"
    part.write_bytes(b"x" * 1000)
    part.with_name(f"{part.name}.from").write_text(f'{server.url}\n"older"\n')
    assert shelf.add(server.url, quiet).sha256 == hashlib.sha256(server.content).hexdigest()


def test_a_copy_of_a_file_that_changed_meanwhile_is_begun_anew(small_model: Path, shelf: Shelf) -> None:
    """One that was interrupted goes on with the same file, not with another that has its name by now."""
    source = shelf.folder.parent / "small.gguf"
    content = small_model.read_bytes()
    begun: list[int] = []

    def interrupted(done: int, _total: int | None) -> None:
        begun.append(done)
        if done:
            raise KeyboardInterrupt

    source.write_bytes(content[:900_000] + b"x" + content[900_001:])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            shelf.add(str(source), interrupted)
    assert begun[2] == begun[1], "goes on where it was"
    source.write_bytes(content)
    assert shelf.add(str(source), quiet).sha256 == hashlib.sha256(content).hexdigest()


def test_what_is_not_as_it_should_be_is_not_kept(server: Server, shelf: Shelf) -> None:
    """A wrong hash, a cut file, no model, no such file, no name: one sentence each, and an empty shelf."""
    faults: tuple[tuple[dict[str, Any], str], ...] = (
        ({"sha256": "0" * 64}, "was asked for"),
        ({"sha256": "ABC"}, "is no SHA-256"),
        ({"name": "../evil.gguf"}, "is no name"),
        ({"name": CURRENT}, "is no name"),
    )
    for wrong, reason in faults:
        with pytest.raises(ModelError, match=reason):
            shelf.add(server.url, quiet, **wrong)
    with pytest.raises(ModelError, match="404"):
        shelf.add(server.url.replace("small", "other"), quiet)
    server.content = server.content[:-1000]
    with pytest.raises(ModelError, match="1000 bytes are missing"):
        shelf.add(server.url, quiet)
    server.content = b"<html>not found</html>"
    with pytest.raises(ModelError, match="is no model in GGUF"):
        shelf.add(server.url, quiet)
    with pytest.raises(ModelError, match="no such file"):
        shelf.add("/nowhere/x.gguf", quiet)
    assert shelf.models() == []


def test_models_are_listed_used_verified_and_removed(small_model: Path, tmp_path: Path) -> None:
    """The whole life of a model on the command line."""
    folder = tmp_path / "models"
    assert "no models" in edged("list", folder=folder).stderr
    for name in ("a.gguf", "b.gguf"):
        added = edged("add", str(small_model), "--name", name, folder=folder)
        assert added.returncode == 0, added.stderr
    assert edged("use", "a.gguf", folder=folder).returncode == 0
    assert (folder / CURRENT).resolve() == (folder / "a.gguf").resolve()
    first, second = map(json.loads, edged("list", "--json", folder=folder).stdout.splitlines())
    assert (first["name"], first["in_use"], second["in_use"]) == ("a.gguf", True, False)
    assert "Q4_0" in edged("list", folder=folder).stdout
    long = "DeepSeek-R1-Distill-Qwen-1.5B-Q4_0.gguf"
    assert edged("add", str(small_model), "--name", long, folder=folder).returncode == 0
    assert f"  {long} " in edged("list", folder=folder).stdout
    assert edged("remove", long, folder=folder).returncode == 0
    assert "is in use" in edged("remove", "a.gguf", folder=folder).stderr
    with (folder / "b.gguf").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    verified = edged("verify", "b.gguf", folder=folder)
    assert (verified.returncode, "CHANGED" in verified.stdout) == (1, True)
    assert "has changed" in edged("use", "b.gguf", folder=folder).stderr
    assert edged("remove", "b.gguf", folder=folder).returncode == 0
    assert "there are: a.gguf" in edged("verify", "b.gguf", folder=folder).stderr


def test_a_folder_that_is_closed_to_us(tmp_path: Path) -> None:
    """As the service's is to all but root, and it is where models go to: who may write there is told."""
    (tmp_path / "private").mkdir(mode=0)
    wrapper = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()
    folder = str(tmp_path / "private" / "models")
    for words in (("list",), ("add", "a.gguf")):
        command = [*wrapper, sys.executable, "-m", "edged", "model", *words, "--folder", folder]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, "Permission denied; use sudo, or" in ended.stderr) == (1, True), (
            ended.stderr
        )
    (tmp_path / "private").chmod(0o700)


class Busy(Shelf):
    """A shelf on which somebody removes a model while its hash is computed."""

    def verify(self, name: str) -> bool:
        """As intact as it was."""
        intact = super().verify(name)
        Shelf(self.folder).remove(name)
        return intact


def test_a_model_that_is_removed_while_it_is_chosen_is_not_chosen(small_model: Path, shelf: Shelf) -> None:
    """The link never names what is not there; a file of the same name that came meanwhile is another one."""
    shelf.add(str(small_model), quiet, name="a.gguf")
    shelf.use("a.gguf")
    shelf.add(str(small_model), quiet, name="b.gguf")
    with pytest.raises(ModelError, match=r"b\.gguf was removed or replaced meanwhile"):
        Busy(shelf.folder).use("b.gguf")
    assert (shelf.folder / CURRENT).resolve().name == "a.gguf"


def test_a_second_add_says_that_it_waits(small_model: Path, shelf: Shelf) -> None:
    """Models come one after the other, and whoever waits for another one is told so."""
    shelf.folder.mkdir()
    with (shelf.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = begun("add", str(small_model), "--name", "a.gguf", folder=shelf.folder)
        assert second.stderr is not None
        assert select.select([second.stderr], [], [], 30)[0], "it waits in silence"
        assert f"another one is bringing a model to {shelf.folder}" in second.stderr.readline()
        assert second.poll() is None
    assert second.communicate()[1] == ""
    assert second.returncode == 0


def test_a_list_in_a_pipe_is_one_line_a_model(tmp_path: Path) -> None:
    """What reads it, as grep does, finds long names whole."""
    names = {f"{'long-' * 15}q4_0.gguf", "model[bold].gguf"}  # rich takes brackets for its own markup
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF")
    listed = edged("list", folder=tmp_path, columns=None).stdout.splitlines()
    assert names <= {word for line in listed for word in line.split()}


def test_a_terminal_has_its_cursor_back(tmp_path: Path) -> None:
    """Ended from elsewhere, by `timeout` say, in the middle of the bar: it stayed hidden in the shell behind it."""
    near, far = pty.openpty()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/small.gguf"
        command = [sys.executable, "-m", "edged", "model", "add", url, "--folder", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stderr=far, env=os.environ | {"TERM": "xterm"}) as process:
            os.close(far)
            shown = b""
            while b"bringing it" not in shown:
                shown += os.read(near, 4096)
            process.send_signal(signal.SIGTERM)
            with suppress(OSError):  # EIO: it has ended
                while more := os.read(near, 4096):
                    shown += more
    os.close(near)
    assert process.returncode == 128 + signal.SIGTERM
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_the_service_may_read_what_root_added(small_model: Path, tmp_path: Path) -> None:
    """It runs under another account, and hardened systems give root a mask of 027 or 077."""
    folder = tmp_path / "edged" / "models"
    before = os.umask(0o077)
    try:
        ended = edged("add", str(small_model), "--name", "one.gguf", folder=folder)
    finally:
        os.umask(before)
    assert ended.returncode == 0, ended.stderr
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "one.gguf")
    }
    assert modes == {"edged": 0o755, "models": 0o755, "one.gguf": 0o644}


def test_a_larger_model_is_quantised(small_model: Path, shelf: Shelf) -> None:
    """With `--q4-0` what stands on the shelf is Q4_0, with the hash of the file that was made."""
    added = shelf.add(str(small_model), quiet, name="made.gguf", to_q4_0=True)
    assert added.shape is not None
    assert added.shape.quantisation == "Q4_0"
    assert shelf.verify("made.gguf")


def test_the_disk_is_not_filled_by_quantising(
    small_model: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for what is brought, and not for what would be made of it: that is said, and it is kept."""
    size = small_model.stat().st_size
    disk = SPARE_BYTES + size + 1_000_000

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=disk - sum(path.stat().st_size for path in folder.glob(".*.part")))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(ModelError, match=r"MiB are free and .* MiB needed"):
        shelf.add(str(small_model), quiet, name="made.gguf", to_q4_0=True)
    assert (shelf.folder / ".made.gguf.part").stat().st_size == size
    disk += size + 100_000_000
    assert shelf.add(str(small_model), quiet, name="made.gguf", to_q4_0=True).fault is None


def test_quantising_that_is_interrupted_begins_with_what_was_brought(small_model: Path, shelf: Shelf) -> None:
    """The file that was made is no part of the one that is brought, and never continued as if it were."""
    shelf.folder.mkdir(parents=True, exist_ok=True)
    in_the_way = shelf.folder / "made.gguf.sha256"
    in_the_way.mkdir()
    with pytest.raises(ModelError):
        shelf.add(str(small_model), quiet, name="made.gguf", to_q4_0=True)
    part = ".made.gguf.part"
    assert {path.name for path in shelf.folder.glob(".made*")} == {part, f"{part}.from", f"{part}.q4_0"}
    in_the_way.rmdir()
    assert shelf.add(str(small_model), quiet, name="made.gguf", to_q4_0=True).fault is None
    assert [path.name for path in shelf.folder.glob(".*")] == [".lock"]
