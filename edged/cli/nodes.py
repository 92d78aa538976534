"""`edged nodes`: every node that the broker knows, one line each, from what they keep there. Asks nobody."""

import os
import sys

import msgspec

from ..client import ClientError, UnreachableError
from . import OVER_MQTT, app, broker
from .ask import complain
from .fleet_table import FleetTable, paper


@app.command(rich_help_panel=OVER_MQTT)
def nodes(  # noqa: PLR0917 - typer gives them by name
    host: broker.Host = broker.HOST,
    port: broker.Port = broker.PORT,
    username: broker.Username = None,
    password_file: broker.PasswordFile = None,
    cafile: broker.CaFile = None,
    cert: broker.Cert = None,
    key: broker.Key = None,
    name: broker.Name = None,
    prefix: broker.Prefix = broker.PREFIX,
    as_json: broker.AsJson = False,
) -> None:
    """List the nodes that this broker knows.

    Exit codes: 0 at least one is online, 1 refused, 75 no broker, or no node online.
    """
    try:
        with broker.connect(host, port, username, password_file, cafile, cert, key, name, prefix) as client:
            found = client.fleet()
        if not found:
            raise UnreachableError("no node has ever been at this broker; start one with edged run")
        if as_json:
            for view in found:
                print(msgspec.json.encode(view.as_json()).decode())
        else:
            paper().print(FleetTable(found))
        code = 0 if any(view.status == "online" for view in found) else os.EX_TEMPFAIL
    except (ClientError, ValueError, OSError) as error:
        code = complain("edged nodes", error)
    sys.exit(code)
