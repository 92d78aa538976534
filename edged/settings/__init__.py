"""Configuration: its only reader, and the one list of every setting with its bounds and meaning.

`tree` holds the settings themselves, with larger sections in files of their own; `source` reads them from a
TOML file and the environment, `table` writes them down for people. Nothing here opens a socket, starts a thread
or logs. Read once, at start, in the process that needs it; the tree is frozen and can be shared between threads.
"""

from .changes import at_run_time, changed, differences, values
from .files import Marks, marks, others
from .heat import Heat
from .network import Mqtt, Node, Tls
from .sessions import Sessions
from .source import OTHER_VARIABLES, load
from .table import Row, markdown_table, table, toml_text
from .tree import (
    Admin,
    Cache,
    Engine,
    Health,
    Journal,
    Limits,
    Log,
    Model,
    Paths,
    Settings,
)

__all__ = [
    "OTHER_VARIABLES",
    "Admin",
    "Cache",
    "Engine",
    "Health",
    "Heat",
    "Journal",
    "Limits",
    "Log",
    "Marks",
    "Model",
    "Mqtt",
    "Node",
    "Paths",
    "Row",
    "Sessions",
    "Settings",
    "Tls",
    "at_run_time",
    "changed",
    "differences",
    "load",
    "markdown_table",
    "marks",
    "others",
    "table",
    "toml_text",
    "values",
]
