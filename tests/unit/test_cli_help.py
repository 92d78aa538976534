"""What a person reads who asks the command line for help: one line a command, every option explained."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
import pytest
from typer.core import TyperOption
from typer.main import get_command

from edged import cli
from edged.cli import EX_INTERRUPTED, app, load_commands, reflow
from edged.cli.ask import complain, follow
from edged.client import Answer, AnswerError, ClientError
from edged.core.reply import Accepted, Cancelled, Delta, Done, Failed, Timings, Usage
from edged.settings import Settings
from edged.settings.leaves import leaves
from edged.settings.source import OTHER_VARIABLES

SUMMARY_MAX = 64
"""Columns that rich leaves beside a command's name in a terminal of 80."""


def commands() -> Iterator[tuple[str, object]]:
    """Every command with its path, as in `model add`."""
    load_commands([])
    cli._reflow_all(app)  # noqa: SLF001 - what `main` does first
    top = get_command(app)
    for name, command in top.commands.items():  # type: ignore[attr-defined] # a group
        yield name, command
        for below, inner in getattr(command, "commands", {}).items():
            yield f"{name} {below}", inner


COMMANDS = dict(commands())


def test_all_commands_are_looked_at() -> None:
    """The list below is that of the help."""
    assert {"ask", "top", "run", "model add", "config check"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_told_in_one_line(name: str) -> None:
    """The list of commands does not wrap at 80 columns; each says what it does in a sentence."""
    summary = (COMMANDS[name].help or "").partition("\n")[0]  # type: ignore[attr-defined] # a command
    assert summary.endswith("."), summary
    assert len(summary) <= SUMMARY_MAX, summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """No option stands there by its name alone."""
    for option in COMMANDS[name].params:  # type: ignore[attr-defined] # a command
        if isinstance(option, TyperOption):
            assert option.help, option.opts


def test_a_variable_of_a_command_stops_no_other() -> None:
    """What one command reads from the environment, the settings of all others know."""
    known = {leaf.variable for leaf in leaves(Settings)} | OTHER_VARIABLES.keys()
    named = {
        option.envvar
        for command in COMMANDS.values()
        for option in command.params  # type: ignore[attr-defined] # a command
        if option.envvar
    }
    assert {"EDGED_CONFIG", "EDGED_SOCKET", "EDGED_MODELS"} <= named
    assert named <= known


def test_a_docstring_is_set_anew_for_the_terminal() -> None:
    """Lines of a paragraph become one, paragraphs stay."""
    assert reflow("One.\n\n    Two\n    three.\n    ") == "One.\n\nTwo three."


DONE = Done(
    id="1",
    seq=9,
    text="",
    finish_reason="stop",
    usage=Usage(),
    timings=Timings(),
    model="m",
    node="shed",
    attempt=1,
)


class Nobody:
    """Whom an answer tells that nobody waits for it any more."""

    def cancel(self, answer: Answer) -> None:
        """Nothing runs."""

    def forget(self, answer: Answer) -> None:
        """Nothing is remembered."""

    def give_up(self, answer: Answer) -> bool:
        """Neither."""
        return answer.terminal is None

    def alive(self) -> bool:
        """It lives as long as the test."""
        return True

    def connected(self) -> bool:
        """As long."""
        return True

    def crowded(self) -> bool:
        """It does not."""
        return False


def test_an_error_in_mid_answer_begins_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What is said after half an answer does not stick to its last word."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(
        Accepted(id="1", seq=0, node="shed", position=0, eta_ms=1, prompt_tokens=3, context=64, deadline_ms=1)
    )
    answer.put(Delta(id="1", seq=1, text="The bearing"))
    answer.put(ClientError("the connection has ended"))
    with pytest.raises(ClientError):
        follow(answer)
    assert capsys.readouterr().out == "The bearing\n"


def test_what_was_lost_is_printed_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Deltas may be lost: behind a gap nothing is shown before `done`, which has all of the text."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(Accepted(id="1", seq=0, node="shed", position=0, eta_ms=1))
    for seq, text in ((1, "The "), (3, "is "), (4, "warm.")):
        answer.put(Delta(id="1", seq=seq, text=text))
    answer.put(msgspec.structs.replace(DONE, text="The bearing is warm."))
    assert follow(answer) == 0
    assert capsys.readouterr().out == "The bearing is warm.\n"


@pytest.mark.parametrize(("second", "shown"), [("The bearing is warm.", ""), ("No.", "The bearing\n")])
def test_an_answer_that_begins_anew(second: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe the second attempt goes on where the first broke off, if it says the same."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(Accepted(id="1", seq=0, node="shed", position=0, eta_ms=1))
    answer.put(Delta(id="1", seq=1, text="The bearing"))
    answer.put(Accepted(id="1", seq=0, node="shed", position=0, eta_ms=2))
    answer.put(Delta(id="1", seq=1, text=second[:4]))
    answer.put(msgspec.structs.replace(DONE, text=second))
    assert follow(answer) == 0
    assert capsys.readouterr().out == f"{shown}{second}\n"


def test_who_answers_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A node's name began a line of its own below the answer, and could turn what stood beside it."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(msgspec.structs.replace(DONE, node="shed\n\u202eroot:", upstream="large\n$ "))
    assert follow(answer) == 0
    assert capsys.readouterr().err.endswith("by large $ , sent on by shed root:\n")


def test_an_answer_that_others_cancelled_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Another program of the same name may: a script took what there was for the answer."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(Cancelled(id="1", seq=1, text="The", usage=Usage()))
    assert follow(answer) == EX_INTERRUPTED
    assert capsys.readouterr().err == "cancelled\n"


def test_a_time_of_many_digits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback: no float is as large."""
    answer = Answer(Nobody(), "1", "shed", lambda: None, None)
    answer.put(Accepted(id="1", seq=0, node="shed", position=1, eta_ms=10**400))
    busy = Failed(id="1", seq=1, code="busy", message="later", retry_after_ms=10**400)
    answer.put(busy)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(AnswerError) as caught:
        follow(answer)
    assert complain("edged ask", caught.value) == os.EX_TEMPFAIL
    assert capsys.readouterr().err.endswith(f"edged ask: busy: later (ask again in {10**397}.0 s)\n")
    assert complain("edged ask", AnswerError(msgspec.structs.replace(busy, retry_after_ms=12_340))) > 0
    assert capsys.readouterr().err == "edged ask: busy: later (ask again in 12.3 s)\n"
