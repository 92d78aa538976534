"""Answers that always parse: a JSON schema as a mask over the next token, through llguidance.

Belongs to the engine. Schemas are compiled in the intake thread, followed token by token in the model thread.
No grammar text ever comes from the wire and llama.cpp's own grammar code is not used: an unparsable grammar
ends the process there. llguidance reports what it cannot do, and works within limits. Imported when the first
schema comes: library and tables are memory that a node without schemas saves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from edged.core.dialect import WITHOUT_NUL, adapted
from edged.core.schema_cost import SPELLED_MAX, cost
from edged.core.tools import Mode, Tool
from edged.engine.call_grammar import UNSPELLED, grammar, header
from edged.engine.calls import CallForm
from edged.engine.unique_grammar import answer, asks
from edged.errors import OutgrownError, Refusal

OPTIONS: dict[str, Any] = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "coerce_one_of": False,
    "lenient": False,
}
"""One way to write a value: a small model else spends its room on white space, and more tokens are forced. And a
schema that cannot be kept whole is refused: nothing of it is silently left out."""
ESCAPES = 'nrbtf\\"'
"""What may follow a backslash, where nothing else is asked for: each text is written in one way then. llguidance
compares names as they are written, so that `\\u0061` was another one than `a`. Control characters go with it."""
CONTROLS = re.compile(r"\\(u00|x)[01]")
"""In a schema that asks for control characters, as JSON writes them or a pattern."""
LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=200_000,  # 0.6 s at most on x86; of schemas that somebody may want the costliest took 21k
    step_lexer_fuel=200_000,  # 14 ms a token
    step_max_items=50_000,  # 3 ms a token
    max_lexer_states=50_000,  # 1 to 2 kB each
    max_grammar_size=20_000,  # 0.1 s; 400 optional properties took 3.2k
)
"""What one schema may cost, to compile and a token; beyond it llguidance reports an error. Some work
counts for none of it: that is bounded by `edged.core.schema_cost`."""
REASON_MAX = 200
"""Characters of its words that a device gets."""
ONE_OF = "oneOf constraints are not supported"
"""Its words for branches that it cannot tell from each other."""
DIGITS = "Value for 'multipleOf' has too many digits"
"""Its words for a decimal such as 0.07, which ten times over and over never comes to a whole float."""
TOO_MUCH = ("too big", "too large", "fuel exhausted")
"""In its words where compiling reaches a limit."""
STATE = "<state>"
"""What follows in its words is its own state, and the whole grammar."""
NOTHING_FITS = ("", "NoExtensionBias")
"""Its words where nothing may come next, as in a schema that refers to itself and to nothing else."""


class Constraint:
    """Follows one answer.

    Args:
        matcher: fresh, from `Constraints`.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with this token."""
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self) -> bytes:
        """One bit a token, lowest bit first: what the answer may go on with.

        Raises:
            OutgrownError: llguidance's limits are reached.
        """
        mask = bytes(self._matcher.compute_bitmask())
        self._check()
        return mask

    def take(self, token: int) -> bool:
        """Go on with a token; False when it does not fit, after which the constraint is of no use.

        Raises:
            OutgrownError: llguidance's limits are reached.
        """
        fits = bool(self._matcher.consume_token(token))
        if not fits:
            self._check()
        return fits

    def forced(self) -> list[int]:
        """Go on with the tokens that the schema leaves no choice about, and return them.

        Raises:
            OutgrownError: llguidance's limits are reached.
        """
        tokens = list(self._matcher.compute_ff_tokens())
        taken = int(self._matcher.try_consume_tokens(tokens)) if tokens else 0
        self._check()
        return tokens[:taken]

    def _check(self) -> None:
        if self._matcher.is_error():
            raise OutgrownError(_one_line(self._matcher.get_error()))

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
        tables: llguidance's, of the vocabulary.
    """

    def __init__(self, tables: LLTokenizer) -> None:
        self._tables = tables

    def compile(self, schema: str, where: str = "response_format", *, unique: bool = True) -> Constraint:
        """A constraint for one answer.

        Args:
            schema: JSON text, bounded by `edged.core.schema`.
            where: it stands, for complaints.
            unique: as for `adapted`.

        Raises:
            Refusal: `bad_request` with llguidance's reason.
        """
        told, options = json.loads(schema), _options(schema)
        try:
            if unique and asks(told, told):
                lines = [header(at_once=_spelled(schema)), "start: answer", answer(told, options), ""]
                return self._constraint(LLMatcher.grammar_from_lark("\n".join(lines)), where)
            text = LLMatcher.grammar_from_json_schema(
                json.dumps(adapted(told, unique=unique)), overrides=options
            )
            return self._constraint(text if _spelled(schema) else _unspelled(text), where)
        except ValueError as error:
            raise _refusal(error, where) from error

    def compile_calls(
        self,
        form: CallForm,
        tools: Sequence[Tool],
        mode: Mode,
        *,
        literal: Callable[[str], Sequence[str | int]],
        parallel: bool,
        schema: str | None,
    ) -> Constraint:
        """A constraint for an answer that may call tools; see `call_grammar.grammar` for the arguments.

        Raises:
            Refusal: `bad_request` with llguidance's reason.
        """
        schemas = [*(tool.parameters for tool in tools), *([] if schema is None else [schema])]
        try:
            text = grammar(
                form,
                tools,
                mode,
                literal=literal,
                parallel=parallel,
                schema=schema,
                options=_options(*schemas),
                at_once=_spelled(*schemas),
            )
            return self._constraint(LLMatcher.grammar_from_lark(text), "response_format or tools")
        except (Refusal, ValueError):
            # That names a line of our grammar: a device is to hear which of its schemas it is, and why.
            if schema is not None:
                self.compile(schema)
            for tool in tools:
                self.compile(tool.parameters, f"tool {tool.name}", unique=False)
            raise

    def _constraint(self, text: str, where: str) -> Constraint:
        matcher = LLMatcher(self._tables, text, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            # A schema that contains itself without an end fails only here: no value of it is finite.
            matcher.compute_bitmask()
        if matcher.is_error():
            raise _refusal(matcher.get_error(), where)
        return Constraint(matcher)


def _options(*schemas: str) -> dict[str, Any]:
    """What llguidance is told for these."""
    return OPTIONS if any(map(CONTROLS.search, schemas)) else {**OPTIONS, "json_allowed_escapes": ESCAPES}


def _spelled(*schemas: str) -> bool:
    """Whether what they leave no choice about is short enough to be spelled out at once."""
    return sum(cost(json.loads(schema)).spelled for schema in schemas) <= SPELLED_MAX


def _unspelled(text: str) -> str:
    """The grammar of a schema with another one beside it, for only such a one can say this of all."""
    told = json.loads(text)
    told["grammars"].append({"name": "unspelled", "lark_grammar": f'{UNSPELLED}\nstart: ""\n'})
    return json.dumps(told)


def _refusal(error: object, where: str) -> Refusal:
    reason = _one_line(error)
    if any(words in reason for words in TOO_MUCH):
        reason = "it comes to too much; combine fewer anyOf in an allOf, or ask for less at once"
    return Refusal("bad_request", f"the schema of {where} cannot be used: {reason}")


def _one_line(error: object) -> str:
    """Its first words and its last ones: of a pattern the pattern, and what is wrong with it."""
    text = " ".join(str(error).partition(STATE)[0].split()).replace(WITHOUT_NUL, "[^")
    if text in NOTHING_FITS:
        return "no value fits it"
    if text.startswith(ONE_OF):  # what it says to switch on there would break the promise
        return "two branches of a oneOf may hold for one value; use anyOf"
    if text.startswith(DIGITS):
        return "a multipleOf of its decimals cannot be kept exactly; ask for whole numbers of a smaller unit"
    return text if len(text) <= REASON_MAX else f"{text[: REASON_MAX // 2]} ... {text[-REASON_MAX // 2 :]}"
