"""A real Prometheus for tests, Debian's, with the project's rules."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from broker import free_port
from device import WAIT_S

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "edged.rules.yml"
CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: edged
    authorization: {{credentials_file: "{key}"}}
    static_configs: [{{targets: ["{target}"]}}]
"""
Found = TypeVar("Found")


class Prometheus:
    """One process, scraping one target every second.

    Args:
        folder: existing and empty.
        target: host and port of a node's HTTP face.
        key: file with the node's key.
    """

    def __init__(self, folder: Path, target: str, key: Path) -> None:
        self.key = key
        self.target_port = int(target.rpartition(":")[2])
        self._folder = folder
        self._config = folder / "prometheus.yml"
        self._config.write_text(CONFIG.format(rules=RULES, target=target, key=key))
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

    def query_range(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Series that an expression had between two wall-clock times.

        Raises:
            AssertionError: Prometheus cannot read it.
        """
        span = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
        answer = self._get("/api/v1/query_range", {"query": expr, **span})
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
