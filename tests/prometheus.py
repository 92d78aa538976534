"""A real Prometheus for tests, Debian's, with the project's rules; and a web page that shows it a metrics file.

A node whose HTTP face is off writes its numbers into a file for node_exporter; the page stands in for that one and
passes the file on as it is.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

from broker import free_port
from device import WAIT_S

from edged.core.exposition import CONTENT_TYPE

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "edged.rules.yml"
CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: edged
    metrics_path: {path}
    static_configs: [{{targets: ["{target}"]}}]
"""
Found = TypeVar("Found")


class Page:
    """Shows a file under every address."""

    def __init__(self, path: Path) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """The file as it is now."""
                content = path.read_bytes() if path.exists() else b""
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.target = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """One process, scraping one target every second.

    Args:
        folder: existing and empty.
        target: host and port.
        path: where the metrics are.
    """

    def __init__(self, folder: Path, target: str, path: str = "/metrics") -> None:
        self._folder = folder
        self._config = folder / "prometheus.yml"
        self._config.write_text(CONFIG.format(rules=RULES, target=target, path=path))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and return when it answers."""
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait(self._ready)
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series that an expression returns now.

        Raises:
            AssertionError: Prometheus cannot read it.
        """
        answer = self._get("/api/v1/query", {"query": expr})
        assert answer["status"] == "success", f"{expr}: {answer}"
        found = answer["data"]["result"]
        assert isinstance(found, list)
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Its rules with the state of their last evaluation."""
        groups = self._get("/api/v1/rules", {})["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def wait(self, look: Callable[[], Found | None], timeout_s: float = WAIT_S) -> Found:
        """Wait until `look` returns something."""
        end = time.monotonic() + timeout_s
        while not (found := look()):
            assert time.monotonic() < end, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        return found

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        address = f"http://127.0.0.1:{self._port}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=WAIT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
