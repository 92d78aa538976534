"""The metrics file: whole at any moment, readable by others, gone at the end; a disk that refuses costs nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import structlog

from edged.adapters.textfile import Textfile


def test_it_is_replaced_and_readable(tmp_path: Path) -> None:
    """Others may read it whatever the umask; nothing else is left in the folder."""
    path = tmp_path / "edged.prom"
    textfile = Textfile(path)
    textfile.write("a 1\n")
    textfile.write("a 2\n")
    assert path.read_text() == "a 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    textfile.remove()
    textfile.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_whole_texts_only(tmp_path: Path) -> None:
    """Whoever reads while it is written gets one text or the other."""
    path = tmp_path / "edged.prom"
    textfile = Textfile(path)
    texts = {"a" * 50_000, "b" * 50_000}
    textfile.write("a" * 50_000)
    seen: set[str] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        for each in texts:
            textfile.write(each)
    over.set()
    reader.join()
    assert seen
    assert seen <= texts


def test_a_folder_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    """A wrong path is one line in the log, not one each interval; it works as soon as the folder is there.

    Where it goes later, as a disk that is unplugged, that is one line again.
    """
    textfile = Textfile(tmp_path / "none" / "edged.prom")
    for number in range(2):
        with structlog.testing.capture_logs() as lines:
            textfile.write("a 1\n")
            assert [line["event"] for line in lines] == ["metrics_textfile_failed"]
            textfile.write("a 2\n")
        assert len(lines) == 1
        assert (lines[0]["reason"], "/run/edged" in lines[0]["mend"]) == ("No such file or directory", True)
        (tmp_path / "none").mkdir()
        textfile.write(f"a {number}\n")
        assert (tmp_path / "none" / "edged.prom").read_text() == f"a {number}\n"
        textfile.remove()
        (tmp_path / "none").rmdir()


def test_a_folder_that_is_a_file_costs_nothing(tmp_path: Path) -> None:
    """Where nothing can be written nothing can be taken away either, as on a read-only file system: one line."""
    (tmp_path / "none").write_text("")
    textfile = Textfile(tmp_path / "none" / "edged.prom")
    with structlog.testing.capture_logs() as lines:
        textfile.write("a 1\n")
        textfile.write("a 2\n")
        textfile.remove()
    assert {line["event"] for line in lines} == {"metrics_textfile_failed"}
