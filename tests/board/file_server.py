"""Serves a folder over HTTP with ranges, which http.server cannot; its first transfer it cuts off.

Runs on the emulated board, which has no way out: `python3 file_server.py FOLDER PORT CUT_BYTES`. Standard library
only. Each request is a line on standard output: what was asked for and how it was answered.
"""

from __future__ import annotations

import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

FOLDER, PORT, CUT_BYTES = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
CHUNK_BYTES = 1 << 20


class Files(BaseHTTPRequestHandler):
    """One request."""

    cut_bytes: int | None = CUT_BYTES

    def do_GET(self) -> None:
        """Send a file from where the client has it, and stop in the middle the first time."""
        path = FOLDER / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        end = size
        if Files.cut_bytes is not None and size > Files.cut_bytes:
            end, Files.cut_bytes = begin + Files.cut_bytes, None
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        print(f"{path.name} from {begin} to {min(end, size)} of {size}", flush=True)
        with path.open("rb") as file:
            file.seek(begin)
            while begin < end and (data := file.read(min(CHUNK_BYTES, end - begin))):
                self.wfile.write(data)
                begin += len(data)


HTTPServer(("127.0.0.1", PORT), Files).serve_forever()
