"""A small client for devices and people: asks a question over MQTT and hands over the answer as it comes.

    with Client("broker.lan", node="attic") as client:
        print(client.ask("Is 85 C hot for a bearing?").text())

Here stand the doors alone; `client` asks, `answer` is one question's replies, `order` puts them into sequence;
`watcher` hears what nodes say of themselves, `fleet` makes values of it, `line` is the connection. Nothing of the
daemon is imported: a device needs paho-mqtt and msgspec and no more.
"""

from edged.client.answer import Answer, AnswerError, AnswerTimeoutError, ClientError, UnreachableError
from edged.client.client import Client
from edged.client.fleet import Happened, NodeView
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, ReasoningDelta

__all__ = [
    "Accepted",
    "Answer",
    "AnswerError",
    "AnswerTimeoutError",
    "Cancelled",
    "Client",
    "ClientError",
    "Delta",
    "Done",
    "Failed",
    "Happened",
    "NodeView",
    "ReasoningDelta",
    "UnreachableError",
]
