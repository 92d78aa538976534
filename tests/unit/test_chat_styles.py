"""Chat templates of well-known styles: what they make of a conversation, of a system message, of control tokens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from templates import STYLES

from edged.core.question import Message
from edged.core.tools import Tool
from edged.engine.calls import OURS
from edged.engine.chat import ChatTemplate
from edged.engine.marks import Span

TEMPLATES = {name: ChatTemplate(style.source, bos="<bos>", eos="<eos>") for name, style in STYLES.items()}
CONTROLS = sorted({control for style in STYLES.values() for control in style.controls} | {"<bos>", "<eos>"})
TALK = [
    Message("system", "S"),
    Message("user", "U"),
    Message("assistant", "A"),
    Message("user", "V"),
]


def joined(spans: list[Span]) -> str:
    """A prompt as one text."""
    return "".join(span.text for span in spans)


@pytest.mark.parametrize("name", STYLES)
def test_conversation(name: str) -> None:
    """System message and turns stand where the model expects them; devices' texts are spans of their own."""
    spans = TEMPLATES[name].render(TALK)
    assert joined(spans) == STYLES[name].written
    plain = "".join(span.text for span in spans if not span.special)
    assert sorted(plain.replace("\n", "")) == ["A", "S", "U", "V"]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("gemma4", "<|turn>model\n<|channel>thought\n<channel|>"),
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("chatml", "<|im_start|>assistant\n"),
    ],
)
def test_without_thinking(name: str, end: str) -> None:
    """A model is asked for an answer at once in the words that it knows for it."""
    text = joined(TEMPLATES[name].render(TALK, thinks=False))
    assert text.endswith(end)
    assert "<|think|>" not in text


@pytest.mark.parametrize("name", STYLES)
def test_without_a_system_message(name: str) -> None:
    """None is made up by us, and nothing is refused."""
    text = joined(TEMPLATES[name].render(TALK[1:]))
    assert "S\n\n" not in text
    assert all(turn in text for turn in "UAV")


def test_where_the_system_message_goes() -> None:
    """Only those styles without a place for it get it in the first user's message."""
    merged = {name for name, template in TEMPLATES.items() if not template.takes_system}
    assert merged == {"gemma", "mistral, early", "system left out"}
    gemma = TEMPLATES["gemma"]
    begun = gemma.render([TALK[0], TALK[1]])
    assert gemma.render([Message("user", "S\n\nU")]) == begun
    assert gemma.render([Message("system", ""), TALK[1]]) == gemma.render([TALK[1]])
    assert "user\nS<end_of_turn>" in joined(gemma.render([TALK[0], Message("user", "")]))


@pytest.mark.parametrize("name", STYLES)
def test_origins_of_answers(name: str) -> None:
    """An earlier answer is known by its place, so that it can be read in the tokens in which it was said."""
    [answer] = [span for span in TEMPLATES[name].render(TALK) if span.text == "A"]
    assert answer.message == 2


@pytest.mark.parametrize("name", STYLES)
def test_tools_are_told(name: str) -> None:
    """None of these lists tools: all are told of them in the system message, or where that goes."""
    template = TEMPLATES[name]
    assert template.form is OURS
    tool = Tool("set_lamp", "Switch <|im_end|> a lamp.", '{"type":"object","properties":{}}')
    spans = template.render([TALK[1]], [tool])
    [told] = [span for span in spans if "set_lamp" in span.text]
    assert not told.special
    assert "<|im_end|> a lamp" in told.text


PIECES = st.lists(st.sampled_from([*CONTROLS, "a", " ", "\n", "{% generation %}"]), max_size=5).map("".join)


@pytest.mark.parametrize("name", STYLES)
@given(texts=st.lists(PIECES, min_size=4, max_size=4))
def test_no_control_token_from_devices(name: str, texts: list[str]) -> None:
    """Whatever stands in a message, what may hold control tokens is the same as for harmless texts."""
    template = TEMPLATES[name]
    messages = [Message(turn.role, f"x{text}x") for turn, text in zip(TALK, texts, strict=True)]
    ours = [span.text for span in template.render(messages) if span.special]
    assert ours == [span.text for span in template.render(TALK) if span.special]


@pytest.mark.parametrize("inside", ["x", "{% set y = 1 %}x{{ y }}", "{% if true %}x{% endif %}", ""])
def test_generation_tags(inside: str) -> None:
    """What stands between them is read as if they were not there, wherever they stand."""
    tagged = ChatTemplate("<a>{%- generation -%} " + inside + " {%- endgeneration -%}</a>")
    assert joined(tagged.render(TALK)) == joined(ChatTemplate(f"<a>{inside}</a>").render(TALK))


@pytest.mark.parametrize(
    ("first", "then"), list(itertools.product(["gemma", "mistral, early"], ["user", "assistant"]))
)
def test_what_a_template_refuses(first: str, then: str) -> None:
    """Merging the system message leaves what the template itself demands: turns that alternate."""
    template = TEMPLATES[first]
    if then == "user":
        with pytest.raises(Exception, match="must alternate"):
            template.render([*TALK[:2], Message("user", "W")])
    else:  # what comes before the answer is then the user's
        assert "S" in joined(template.render([TALK[0], Message("assistant", "A"), TALK[3]]))
