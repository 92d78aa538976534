"""Makes `asyncapi.yaml` beside this file: the wire contract as an AsyncAPI 3 document.

    python deploy/specification.py           writes it
    python deploy/specification.py --check   tells whether it is what this file makes

The schemas come from the types that the daemon itself reads and writes with; what cannot be read off them (topics,
QoS, who sends) stands here. Needs PyYAML (extra `test`). Never edit the YAML: a test compares it, and checks
messages of a running daemon against it.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edged.core import news, parsing, reply
from edged.core.control import Control, Status
from edged.core.topics import JOB_ID, NAME, Topics

HERE = Path(__file__).parent
Json = dict[str, Any]

QUESTION = parsing._Payload  # noqa: SLF001 - what a question is on the wire stands there and nowhere else
REPLIES = tuple(
    kind
    for kind in (*vars(reply).values(), Status)
    if inspect.isclass(kind) and issubclass(kind, reply.Reply) and kind is not reply.Reply
)
NAMES = {QUESTION: "Question", reply.Failed: "Error"}
"""Names of schemas that differ from those of their classes."""

PARAMETERS = {
    "node": "Name of a board; `node.id` in its settings.",
    "pool": "Name of a pool of boards.",
    "client": "Name of a device; with accounts at the broker its user name.",
    "id": "Id of the question.",
}
SHAPE = {"id": JOB_ID.pattern}
TOPICS = Topics("edged", "{node}")


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic: who sends there (`node` or `device`), what, and how."""

    address: str
    sender: str
    says: str
    messages: tuple[str, ...]
    qos: int = 1
    retain: bool = False
    reply: str | None = None


REPLY_MESSAGES = tuple(sorted(NAMES.get(kind, kind.__name__) for kind in REPLIES))
CHANNELS = {
    "ask": Channel(
        TOPICS.ask("{client}"),
        "device",
        "A question to one board.",
        ("Question", "PlainQuestion"),
        reply="answer",
    ),
    "askPool": Channel(
        "edged/v1/pool/{pool}/ask/{client}",
        "device",
        "A question to whichever board of the pool is free: boards share the subscription. Never retained.",
        ("Question", "PlainQuestion"),
        reply="answer",
    ),
    "answer": Channel(
        TOPICS.answer("{client}", "{id}"),
        "node",
        "Replies to a question, unless it names another topic. Exactly one of Done, Cancelled and Error ends it. "
        "Delta and ReasoningDelta come with QoS 0: Done repeats the whole text.",
        REPLY_MESSAGES,
    ),
    "text": Channel(
        TOPICS.text("{client}"), "node", "The answer to a question that was plain text.", ("PlainAnswer",)
    ),
    "control": Channel(
        TOPICS.control("{client}"),
        "device",
        "What a device wants of its own questions.",
        ("Control",),
        reply="answer",
    ),
    "status": Channel(
        TOPICS.status, "node", "Whether it answers; also its last will.", ("NodeStatus",), retain=True
    ),
    "info": Channel(TOPICS.info, "node", "Who it is.", ("Info",), retain=True),
    "health": Channel(
        TOPICS.health,
        "node",
        "How it is, at every health.interval_s; expires after three of them.",
        ("Health",),
        qos=0,
        retain=True,
    ),
    "event": Channel(TOPICS.event, "node", "What happened.", ("Event",)),
}


def schemas() -> Json:
    """JSON schemas of everything on the wire, by name."""
    types = [QUESTION, Control, *REPLIES, news.Info, news.Health, news.Event]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    classes = {kind.__name__: kind for kind in _all_structs(types)}
    made = {}
    for name, schema in components.items():
        kind = classes.get(name)
        made[NAMES.get(kind, name) if kind else name] = _schema(schema, kind)
    return _renamed(made)


def _all_structs(types: list[Any]) -> set[type[msgspec.Struct]]:
    """These and what they are made of."""
    found: set[type[msgspec.Struct]] = set()
    waiting = [msgspec.inspect.type_info(kind) for kind in types]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            waiting += [one.type for one in info.fields]
        for holder in ("types", "item_types"):
            waiting += getattr(info, holder, ())
        waiting += [getattr(info, one) for one in ("item_type", "value_type") if hasattr(info, one)]
    return found


def _schema(schema: Json, kind: type[msgspec.Struct] | None) -> Json:
    """A schema as it is on the wire: what is not known is absent there, never null; with words for its fields."""
    properties = {key: _wire(value) for key, value in schema.get("properties", {}).items()}
    required = set(schema.get("required", []))
    if kind is not None and issubclass(kind, reply.Reply):
        required |= {"id", "seq"} if kind is not Status else {"id"}
        properties["seq"] = {"type": "integer", "minimum": -1 if kind is Status else 0}
    about, fields = _words(kind) if kind is not None else ("", {})
    encoded = {one.name: one.encode_name for one in msgspec.structs.fields(kind)} if kind else {}
    for name, words in fields.items():
        if encoded.get(name, name) in properties:
            properties[encoded.get(name, name)]["description"] = words
    made: Json = {"type": "object"}
    if about:
        made["description"] = about
    made["properties"] = properties
    if required:
        made["required"] = sorted(required)
    if schema.get("additionalProperties") is False or kind is QUESTION:
        made["additionalProperties"] = False
    return made


def _wire(schema: Json) -> Json:
    """The schema without null and without empty defaults."""
    kept = {key: value for key, value in schema.items() if key != "default" or value not in (None, {}, [])}
    options = [one for one in kept.pop("anyOf", []) if one != {"type": "null"}]
    if len(options) == 1:
        kept.update(options[0])
    elif options:
        kept["anyOf"] = options
    if isinstance(kept.get("items"), dict):
        kept["items"] = _wire(kept["items"])
    return kept


def _words(kind: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """What a docstring says of a type, and of its fields under `Attributes:`."""
    about, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")
    fields: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(attributes).strip("\n")):
        names, _, words = " ".join(entry.split()).partition(": ")
        fields |= dict.fromkeys(names.split(", "), words)
    return " ".join(about.split()), {name: words for name, words in fields.items() if name and words}


def _renamed(made: Json) -> Json:
    """References under the names of the document."""
    text = msgspec.json.encode(made).decode()
    for kind, name in NAMES.items():
        text = text.replace(f'"#/components/schemas/{kind.__name__}"', f'"#/components/schemas/{name}"')
    return msgspec.json.decode(text, type=Json)


def _messages() -> Json:
    names = {name for channel in CHANNELS.values() for name in channel.messages}
    made: Json = {
        "PlainQuestion": {
            "contentType": "text/plain",
            "description": "Any other UTF-8 text is the prompt, and all the rest has its defaults.",
            "payload": {"type": "string", "minLength": 1},
        },
        "PlainAnswer": {"contentType": "text/plain", "payload": {"type": "string"}},
        "NodeStatus": {
            "contentType": "text/plain",
            "payload": {"type": "string", "enum": ["online", "offline"]},
        },
    }
    for name in names - set(made):
        made[name] = {"payload": {"$ref": f"#/components/schemas/{name}"}}
    for name in ("Question", "PlainQuestion"):
        made[name]["bindings"] = {"mqtt": {"responseTopic": {"type": "string"}, "bindingVersion": "0.2.0"}}
        made[name]["x-message-expiry"] = "counts as the deadline; the shorter one holds"
    for name, message in made.items():
        message["name"] = message["title"] = name
    return dict(sorted(made.items()))


def _parameter(name: str) -> Json:
    return {"description": f"{PARAMETERS[name]} Matches `{SHAPE.get(name, NAME.pattern)}`."}


def document() -> Json:
    """The AsyncAPI document."""
    channels: Json = {}
    operations: Json = {}
    for name, channel in CHANNELS.items():
        parameters = re.findall(r"{(\w+)}", channel.address)
        channels[name] = {
            "address": channel.address,
            "description": channel.says,
            "parameters": {one: {"$ref": f"#/components/parameters/{one}"} for one in parameters},
            "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in channel.messages},
        }
        operation: Json = {
            "action": "send" if channel.sender == "node" else "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in channel.messages],
            "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retain, "bindingVersion": "0.2.0"}},
        }
        if channel.reply is not None:
            operation["reply"] = {"channel": {"$ref": f"#/channels/{channel.reply}"}}
        operations[("tell" if channel.sender == "node" else "hear") + name[0].upper() + name[1:]] = operation
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edged",
            "version": "1",
            "description": "The wire contract of edged, version 1, as seen by a board: it receives questions and "
            "sends answers. The first level of all topics, `edged`, is a setting. What the contract promises about "
            "delivery, and what a schema cannot say, stands in the README.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker.example:1883",
                "protocol": "mqtt",
                "protocolVersion": "5",
                "description": "Any MQTT 5 broker; MQTT 3.1.1 devices get everything that fits into a payload.",
            },
            "brokerTls": {"host": "broker.example:8883", "protocol": "secure-mqtt", "protocolVersion": "5"},
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "parameters": {name: _parameter(name) for name in PARAMETERS},
            "messages": _messages(),
            "schemas": dict(sorted(schemas().items())),
        },
    }


def made() -> str:
    """The document as YAML."""
    head = "# Made by deploy/specification.py from the types of the daemon. Do not edit.\n"
    return head + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110)


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    path = HERE / "asyncapi.yaml"
    if "--check" not in arguments:
        path.write_text(made(), "utf-8")
    elif not path.exists() or path.read_text("utf-8") != made():
        sys.stderr.write(
            "asyncapi.yaml is not what specification.py makes: run python deploy/specification.py\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
