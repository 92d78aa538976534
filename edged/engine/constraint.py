"""Answers that always parse: a JSON schema as a mask over the next token, through llguidance.

Belongs to the engine. Schemas are compiled in the intake thread, followed token by token in the model thread.
No grammar text ever comes from the wire and llama.cpp's own grammar code is not used: an unparsable grammar
ends the process there. llguidance reports what it cannot do, and works within limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from llguidance import LLMatcher, LLTokenizer

from edged.errors import Refusal

COMPACT = {"whitespace_flexible": False}
"""One way to write a value: a small model else spends its room on white space, and more tokens are forced."""


class Constraint:
    """Follows one answer.

    Args:
        matcher: fresh, from `Constraints.compile`.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with this token."""
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self) -> bytes:
        """One bit a token, lowest bit first: what the answer may go on with."""
        return bytes(self._matcher.compute_bitmask())

    def take(self, token: int) -> bool:
        """Go on with a token; False when it does not fit, after which the constraint is of no use."""
        return bool(self._matcher.consume_token(token))

    def forced(self) -> list[int]:
        """Go on with the tokens that the schema leaves no choice about, and return them."""
        tokens = list(self._matcher.compute_ff_tokens())
        taken = int(self._matcher.try_consume_tokens(tokens)) if tokens else 0
        return tokens[:taken]

    @property
    def complete(self) -> bool:
        """Whether the answer is valid as it stands."""
        return bool(self._matcher.is_accepting())

    @property
    def closed(self) -> bool:
        """Whether nothing can follow any more."""
        return bool(self._matcher.is_stopped())


class Constraints:
    """Compiles schemas for one vocabulary.

    Args:
        make: builds llguidance's tables of the vocabulary: half a second for 49k tokens, two for 152k. Called
            once, when the first schema comes or `prepare` is called.
    """

    def __init__(self, make: Callable[[], LLTokenizer]) -> None:
        self._make = make
        self._making = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def prepare(self) -> LLTokenizer:
        """Build the tables, if they are not there yet. Any thread."""
        with self._making:
            if self._tokenizer is None:
                self._tokenizer = self._make()
            return self._tokenizer

    def compile(self, schema: str) -> Constraint:
        """A constraint for one answer.

        Args:
            schema: JSON text, bounded by `edged.core.schema`.

        Raises:
            Refusal: `bad_request` with llguidance's reason.
        """
        tokenizer = self.prepare()
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=COMPACT)
        except ValueError as error:
            raise _refusal(error) from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return Constraint(matcher)


def _refusal(error: object) -> Refusal:
    return Refusal(
        "bad_request", f"response_format: the schema cannot be used: {str(error).splitlines()[0][:200]}"
    )
