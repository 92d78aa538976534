"""The HTTP face: OpenAI's and Ollama's shapes over the same questions and replies that devices use.

Runs in a thread of its own with an asyncio loop. What is asked becomes a payload of the wire contract and goes into
the node's inbox as if a broker had brought it; replies come back through a mailbox. starlette and uvicorn are
imported here and nowhere else, and only where `[http]` is enabled.
"""

from .asking import Node
from .server import Listening, Server

__all__ = ["Listening", "Node", "Server"]
