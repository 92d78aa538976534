"""A small client for devices and people: asks a question over MQTT and hands over the answer as it comes.

    with Client("broker.lan", node="attic") as client:
        print(client.ask("Is 85 C hot for a bearing?").text())

Here stand the doors alone; `connection` holds the connection, `answer` one question's replies, `order` puts
replies into sequence. Nothing of the daemon is imported, so a device needs paho-mqtt and msgspec and no more.
"""

from edged.client.answer import Answer, AnswerError, AnswerTimeoutError, ClientError, UnreachableError
from edged.client.connection import Client

__all__ = ["Answer", "AnswerError", "AnswerTimeoutError", "Client", "ClientError", "UnreachableError"]
