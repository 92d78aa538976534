"""`python -m edged.tools FD NAME...`: the process of the node's tools. The daemon starts it; people do not.

Ends with the daemon, and is the first to go when memory runs out.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from importlib.metadata import entry_points
from typing import Any, cast

import msgspec

from edged.child import end_with_parent, offer_to_oom_killer
from edged.core.tools import described
from edged.engine.channel import Channel
from edged.tools import GROUP, LocalTool, Surroundings
from edged.tools.messages import RESULT_BYTES_MAX, Ask, Frame, Loaded, Told

OOM_SCORE_ADJ = 1000


def main() -> int:
    """Load the tools, then run what is asked until the daemon's end closes."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    offer_to_oom_killer(OOM_SCORE_ADJ)
    channel: Channel[Frame, Ask] = Channel(socket.socket(fileno=int(sys.argv[1])), Ask)
    try:
        tools = {name: _load(name) for name in sys.argv[2:]}
        offered = [
            described(name, tool.description, dict(tool.parameters), f"parameters of {name}")
            for name, tool in tools.items()
        ]
        channel.send(Loaded(tuple(offered)))
    except BaseException as error:  # noqa: BLE001 - whatever a plug-in does at its import, the operator is told
        channel.send(Loaded(problem=f"{type(error).__name__}: {error}"))
        return 0
    own = os.getpid()
    for asked in channel.receive():
        told = run(tools[asked.name], asked)
        if os.getpid() != own:
            return 0  # a process that the tool has forked came back too: a call has one result
        channel.send(told)
    return 0


def _load(name: str) -> LocalTool:
    found = entry_points(group=GROUP, name=name)
    if not found:
        installed = sorted({entry.name for entry in entry_points(group=GROUP)})
        raise LookupError(f"there is no tool {name}; installed are {', '.join(installed)}")
    tool = next(iter(found)).load()
    if not isinstance(tool, LocalTool):
        raise TypeError(f"tool {name} is no edged.tools.LocalTool")
    return tool


def run(tool: LocalTool, asked: Ask) -> Told:
    """Run one tool once."""
    own = os.getpid()
    try:
        result = tool.run(msgspec.json.decode(asked.arguments), Surroundings(asked.node, asked.vitals))
        text = _utf8(result) if isinstance(result, str) else msgspec.json.encode(cast("Any", result)).decode()
    except BaseException as error:  # whatever it is, sys.exit too, the model is told and the node goes on
        if os.getpid() != own:
            raise  # in a process that the tool has forked: that ends as it would elsewhere
        return Told(_utf8(f"{type(error).__name__}: {error}")[:500], failed=True)
    if len(text.encode()) > RESULT_BYTES_MAX:
        return Told(f"the result has more than {RESULT_BYTES_MAX} bytes; ask for less", failed=True)
    return Told(text)


def _utf8(text: str) -> str:
    """The text without lone surrogates, as in the name of a file that is no UTF-8: no frame can hold them."""
    return text.encode(errors="replace").decode()


if __name__ == "__main__":
    sys.exit(main())
