"""Between which tags the families of models write their thinking; a chat template tells the family. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands around a model's thinking.

    Attributes:
        open, close: each one token, or a text.
        closing: what we write into the answer when the budget of the thinking is spent, as the model does itself.
        head: what a model writes behind the opening tag that is no thinking.
    """

    open: str
    close: str
    closing: str
    head: str = ""


THINK = Tags("<think>", "</think>", "\n</think>\n\n")
"""R1-Distill's, Qwen3's, SmolLM3's and most others'; and what `inline` shows, whatever the model writes."""
FAMILIES = (
    THINK,
    Tags("[THINK]", "[/THINK]", "[/THINK]"),  # Magistral, Ministral 3
    Tags("<|channel>", "<channel|>", "\n<channel|>", head="thought\n"),  # Gemma 4
    Tags("<|START_THINKING|>", "<|END_THINKING|>", "<|END_THINKING|>"),  # Command R7B, A
    Tags("<thought>", "</thought>", "\n</thought>\n\n"),  # EXAONE Deep
    Tags("<seed:think>", "</seed:think>", "</seed:think>"),  # Seed-OSS
)


def tags_of(template: str) -> Tags | None:
    """Whose tags a chat template's source knows; None for a model that does not think."""
    return next((tags for tags in FAMILIES if tags.open in template or tags.close in template), None)


def without_thinking(text: str) -> str:
    """A whole answer less the thinking that stands in front of it between tags, as `inline` has it."""
    return text.partition(THINK.close)[2] if text.startswith(THINK.open) else text
