"""Whether an answer from elsewhere follows its schema: jsonschema-rs, and nothing else, lives here.

A schema comes from a device and a text from another machine, and the check holds the interpreter while it runs. So
what could take long is not checked at all: patterns are matched in linear time, references are bounded, nothing is
fetched.
"""

from __future__ import annotations

import jsonschema_rs
import msgspec

from edged.core.reply import parsed
from edged.core.schema import unrolled
from edged.errors import Refusal

SUBSCHEMAS_MAX = 1024
ANSWER_BYTES_MAX = 256 * 1024


class Judge:
    """Keeps the schema that it saw last: a question is looked at when it is sent and when it is answered."""

    def __init__(self) -> None:
        self._schema = ""
        self._validator: jsonschema_rs.Validator | None = None

    def takes(self, schema: str) -> bool:
        """Whether answers can be held against this schema here."""
        return self._for(schema) is not None

    def fault(self, schema: str, text: str) -> str | None:
        """What is wrong with an answer, in a few words; None where nothing is."""
        if len(text) > ANSWER_BYTES_MAX:
            return f"its answer has more than {ANSWER_BYTES_MAX} characters, too many to hold to a schema"
        try:
            value = parsed(text)
        except Refusal:
            return "its answer is not the JSON that was asked for"
        validator = self._for(schema)
        return None if validator is not None and validator.is_valid(value) else "its answer breaks the schema"

    def _for(self, schema: str) -> jsonschema_rs.Validator | None:
        if schema != self._schema:
            self._schema, self._validator = schema, _validator(schema)
        return self._validator


def _validator(schema: str) -> jsonschema_rs.Validator | None:
    if not unrolled(msgspec.json.decode(schema), SUBSCHEMAS_MAX):
        return None
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, ValueError):
        return None
