"""The examples work as they are: the Python ones ask a real daemon, others are read as their hosts read them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from broker import Mosquitto
from daemon_process import MakeDaemon
from device import WAIT_S, Listener
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edged.core.parsing import Bounds, Envelope, parse
from edged.core.question import Question
from edged.core.topics import Topics

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
TESTS = Path(__file__).parents[1]
MICRO = """
import sys
import ask_edged
from umqtt import ticks
ticks.install()
for question in sys.argv[2:]:
    print(ask_edged.ask(question, broker="127.0.0.1", port=int(sys.argv[1]), node="n1"))
"""


def run(folder: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a Python example; no name of this project is in reach but the stand-in for umqtt."""
    path = os.pathsep.join([str(EXAMPLES / folder), str(TESTS)])
    return subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES / folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * WAIT_S,
    )


def test_one_line_of_a_shell(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """The README's, as it stands there: it prints the answer's text, not the first of the replies."""
    daemon(broker, {"node": {"id": "shed"}}, scripted=True).start()
    readme = (EXAMPLES.parents[1] / "README.md").read_text().splitlines()
    [line] = [line for line in readme if line.startswith("mosquitto_rr ")]
    command = line.replace("-h broker", f"-h {broker.host} -p {broker.port}")
    ended = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "w0 w1 w2 \n"), ended.stderr


def test_cpython(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """It prints the answer, or the sentence of the error."""
    daemon(broker, scripted=True).start()
    asked = ("ask_edged.py", "--port", str(broker.port), "--node", "n1")
    ended = run("python", *asked, "tokens=6")
    assert (ended.returncode, ended.stdout) == (0, "w0 w1 w2 w3 w4 w5 \n"), ended.stderr
    assert "[place 0" in ended.stderr
    ended = run("python", *asked, "a " * 3000)
    assert ended.returncode == 1
    assert ended.stderr.startswith("too_long: ")


def test_micropython(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """The same under the stand-in for umqtt.simple; a question that cannot be answered raises its sentence."""
    daemon(broker, scripted=True).start()
    ended = run("micropython", "-c", MICRO, str(broker.port), "tokens=4")
    assert (ended.returncode, ended.stdout) == (0, "w0 w1 w2 w3 \n"), ended.stderr
    ended = run("micropython", "-c", MICRO, str(broker.port), "a " * 3000)
    assert ended.returncode == 1
    assert "ValueError: " in ended.stderr


def test_micropython_asks_twice_in_a_second(broker: Mosquitto, daemon: MakeDaemon) -> None:
    """Or with the same time on its clock, as after each start of a device without a battery."""
    daemon(broker, scripted=True).start()
    ended = run("micropython", "-c", MICRO, str(broker.port), *(f"tokens={count}" for count in (1, 2, 3, 4)))
    assert ended.stdout == "w0 \nw0 w1 \nw0 w1 w2 \nw0 w1 w2 w3 \n", ended.stderr


def test_micropython_waits_as_told(broker: Mosquitto) -> None:
    """A busy board is asked again under the same id, when it said, by a clock that may begin anew meanwhile."""
    topic, wait_ms = "edged/v1/node/n1/ask/pico-1", 700
    board = Listener(broker.host, broker.port, (topic,), name="board").start()
    told: list[dict[str, Any]] = [
        {"type": "error", "seq": 0, "code": "busy", "message": "later", "retry_after_ms": wait_ms},
        {"type": "done", "seq": 1, "text": "No."},
    ]

    def answer() -> None:
        for count, reply in enumerate(told, 1):
            board.wait(lambda count=count: len(board.heard) >= count)  # type: ignore[misc]
            asked = board.heard[count - 1]
            board.publish(
                f"edged/v1/client/pico-1/answer/{asked.json['id']}",
                json.dumps({"id": asked.json["id"], **reply}).encode(),
            )

    answering = threading.Thread(target=answer)
    answering.start()
    ended = run("micropython", "-c", MICRO, str(broker.port), "Is 31 C warm for a fridge?")
    answering.join()
    board.stop()
    assert (ended.returncode, ended.stdout) == (0, "No.\n"), ended.stderr
    first, second = board.heard
    assert second.payload == first.payload
    assert second.at - first.at >= 0.9 * wait_ms / 1000


def read(payload: str, client: str) -> Question:
    """A question as a node reads it."""
    topics = Topics("edged", "shed")
    return parse(payload.encode(), Envelope(client, "made"), topics, Bounds())


class _Tagless(yaml.SafeLoader):
    """Home Assistant's own tags, such as !include, as text."""


_Tagless.add_constructor(None, lambda _loader, node: str(node.value))


def home_assistant(template: str, **values: Any) -> str:
    """A template as Home Assistant renders it, as far as the example goes."""
    environment = ImmutableSandboxedEnvironment()
    environment.filters["to_json"] = json.dumps
    return environment.from_string(template).render(**values)


class _Now:
    """What Home Assistant's `now()` returns, as far as the example goes."""

    @staticmethod
    def timestamp() -> float:
        """Seconds."""
        return 1_766_000_000.123


def test_home_assistant() -> None:
    """The script publishes a question that a node takes; what is read out is the answer, or why there is none."""
    package = yaml.load((EXAMPLES / "homeassistant" / "ask_edged.yaml").read_text(), _Tagless)  # noqa: S506
    [publish] = package["script"]["ask_edged"]["sequence"]
    assert publish["data"]["topic"] == Topics("edged", "shed").ask("homeassistant")
    payload = home_assistant(publish["data"]["payload"], question='Is "85 C" hot?', now=_Now)
    question = read(payload, "homeassistant")
    assert question.messages[-1].content == 'Is "85 C" hot?'
    assert question.id == "ha-1766000000123"
    reading, asking = package["automation"]
    [trigger] = reading["triggers"]
    assert trigger["topic"] == "edged/v1/client/homeassistant/answer/+"
    speech = reading["actions"][1]["data"]["message"]
    assert home_assistant(speech, reply={"type": "done", "text": "No."}) == "No."
    assert home_assistant(speech, reply={"type": "error", "message": "busy"}) == "No answer: busy"
    condition = reading["conditions"][0]["value_template"]
    for kind, said in {"done": "True", "delta": "False", "error": "True"}.items():
        assert home_assistant(condition, trigger={"payload_json": {"type": kind}}) == said
    assert asking["actions"][0]["action"] == "script.ask_edged"


def test_node_red() -> None:
    """Every wire ends at a node of the flow; it listens where its questions are answered."""
    flow = json.loads((EXAMPLES / "node-red" / "ask_edged.json").read_text())
    nodes = {node["id"]: node for node in flow}
    assert len(nodes) == len(flow)
    ends = {end for node in flow for wires in node.get("wires", []) for end in wires}
    assert ends <= set(nodes)
    unwired = {
        node["id"] for node in flow if node["type"] not in {"tab", "mqtt-broker", "inject", "mqtt in"}
    } - ends
    assert unwired == set()
    assert nodes["edged-in"]["topic"] == "edged/v1/client/node-red/answer/+"
    assert "/ask/${client}" in nodes["edged-question"]["func"]
    assert 'client = "node-red"' in nodes["edged-question"]["func"]
    rules = nodes["edged-type"]["rules"]
    assert len(rules) == len(nodes["edged-type"]["wires"]) == nodes["edged-type"]["outputs"]


@pytest.mark.parametrize("name", ["esp32/ask_edged.ino"])
def test_topics_in_the_sketch(name: str) -> None:
    """What cannot be compiled here at least names the contract's topics."""
    sketch = (EXAMPLES / name).read_text()
    assert 'String("edged/v1/node/") + NODE + "/ask/" + CLIENT' in sketch
    assert 'String("edged/v1/client/") + CLIENT + "/answer/+"' in sketch
    assert "setBufferSize" in sketch


def test_every_example_is_listed() -> None:
    """The table names each file, and no other."""
    listed = (EXAMPLES / "README.md").read_text()
    files = {
        path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.*") if path.parent != EXAMPLES
    }
    files = {name for name in files if "__pycache__" not in name}
    assert files
    assert {name for name in files if f"`{name}`" not in listed} == set()
