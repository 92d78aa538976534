"""The handle on the process of the tools: whose calls are made, and what is left of one that took too long."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from desk_rig import Rig, ended
from desk_rig import Toolbox as Written

from edged.core.reply import Usage
from edged.core.tools import Call, Offer
from edged.engine.messages import Started, Submit
from edged.errors import NotNowError, SettingsError
from edged.tools.client import Toolbox, ToolsRan

LIMIT_S = 1.0
PLUGIN = """
import os, subprocess, sys, time
from pathlib import Path
from edged.tools import LocalTool

def hang(arguments, surroundings):
    time.sleep(3600)

def spawn(arguments, surroundings):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(os.environ["TRIAL_PID"]).write_text(str(child.pid))
    child.wait()

def hello(arguments, surroundings):
    return "hello"

def quit(arguments, surroundings):
    sys.exit("no such sensor")

def leave(arguments, surroundings):
    os._exit(3)

def fork(arguments, surroundings):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "of the parent" if child else "of the child"

HANG, SPAWN, HELLO, QUIT, LEAVE, FORK = (
    LocalTool("For tests.", {"type": "object"}, run) for run in (hang, spawn, hello, quit, leave, fork)
)
LIST = LocalTool("For tests.", {"type": "array"}, hello)
"""
NAMES = ("hang", "spawn", "hello", "quit", "leave", "fork")


@pytest.fixture
def ran() -> queue.SimpleQueue[ToolsRan]:
    """What the toolbox said."""
    return queue.SimpleQueue()


@pytest.fixture
def toolbox(
    ran: queue.SimpleQueue[ToolsRan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Toolbox]:
    """Tools that an installed package brings."""
    (tmp_path / "trial_tools.py").write_text(PLUGIN)
    (tmp_path / "trial_exit.py").write_text("raise SystemExit('no licence')")
    (tmp_path / "trial_crash.py").write_text("import os; os.kill(os.getpid(), 4)")
    info = tmp_path / "trial_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-tools\nVersion: 1.0\n")
    entries = "".join(f"{name} = trial_tools:{name.upper()}\n" for name in (*NAMES, "list"))
    entries += "exit = trial_exit:EXIT\ncrash = trial_crash:CRASH\n"
    (info / "entry_points.txt").write_text(f"[edged.tools]\n{entries}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRIAL_PID", str(tmp_path / "pid"))
    tools = Toolbox(NAMES, LIMIT_S, ran.put)
    tools.start()
    yield tools
    tools.stop(5.0)


def order(toolbox: Toolbox, run: int, *names: str) -> None:
    """Have these tools called."""
    toolbox.run(run, run, tuple(Call(f"c{at}", name, "{}") for at, name in enumerate(names)), "n1", {})


def test_a_tool_s_schema_is_read_as_a_device_s(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """It counts as closed, so no model invents arguments; one that is none of an object ends the start."""
    assert json.loads(toolbox.tools["hello"].parameters) == {"type": "object", "additionalProperties": False}
    with pytest.raises(SettingsError, match="parameters of list must be a JSON schema of type object"):
        Toolbox(("list",), LIMIT_S, ran.put).start()


def test_a_tool_that_exits_as_it_is_imported(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """The operator hears which words it had, not that it took too long."""
    del toolbox
    with pytest.raises(SettingsError, match="SystemExit: no licence"):
        Toolbox(("exit",), LIMIT_S, ran.put).start()


def test_a_tool_that_crashes_as_it_is_imported(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """As NumPy for a newer processor does: the operator heard that it took too long."""
    del toolbox
    with pytest.raises(NotNowError, match="the tools ended their process with SIGILL as they were loaded"):
        Toolbox(("crash",), LIMIT_S, ran.put).start()


def test_calls_that_nobody_waits_for_are_not_made(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """Ten questions whose tool hangs have been taken back: the next one's is not held up by their calls."""
    begun = time.monotonic()
    for run in range(10):
        order(toolbox, run, "hang", "hang")
    order(toolbox, 10, "hello")
    for run in range(10):
        toolbox.give_up(run)
    assert ran.get(timeout=20 * LIMIT_S + 30) == ToolsRan(10, 10, ("hello",))
    assert time.monotonic() - begun < 10 * LIMIT_S


def test_what_a_tool_has_started_ends_with_it(
    toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan], tmp_path: Path
) -> None:
    """A command that hangs is not left behind each time that the tool around it took too long."""
    order(toolbox, 1, "spawn", "hello")
    assert ran.get(timeout=60).results == (f"error: spawn gave no result within {LIMIT_S:g} s", "hello")
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_call_has_one_result(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """Of a tool that forks the parent's alone: the child's was taken for the next call's, and so on for ever."""
    order(toolbox, 1, "fork", "hello")
    assert ran.get(timeout=60).results == ("of the parent", "hello")


def test_a_tool_that_exits(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """As a program does that is called in the same process: its words are told, as of any other error."""
    order(toolbox, 1, "quit", "hello")
    assert ran.get(timeout=60).results == ("error: SystemExit: no such sensor", "hello")


def test_a_tool_that_ends_its_process(toolbox: Toolbox, ran: queue.SimpleQueue[ToolsRan]) -> None:
    """The model hears that, not that the tool was slow; the next call is made in a new process."""
    order(toolbox, 1, "leave", "hello")
    assert ran.get(timeout=60).results == (
        "error: leave gave no result but ended its process with exit code 3; the next call gets a new process",
        "hello",
    )


def is_running(pid: int) -> bool:
    """Whether there is such a process that is no zombie: nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Listening(Written):
    """A toolbox that writes down which calls it was told to give up."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up: list[int] = []

    def give_up(self, run: int) -> None:
        """Nobody waits for these any more."""
        self.given_up.append(run)


def calling() -> tuple[Rig, Listening]:
    """A desk whose question 1 has its tools run."""
    rig, toolbox = Rig(), Listening()
    rig.desk.calling.toolbox = toolbox
    rig.ask(1, tools=Offer(local=("t",)), reasoning_budget=5)
    rig.measured(1)
    rig.desk.hearing.engine_said(Started(1))
    calls = (Call("c", "t", "{}"),)
    over = msgspec.structs.replace(ended(1, "", "tool_calls"), calls=calls, usage=Usage(9, 0, 3, 2))
    rig.desk.hearing.engine_said(over)
    return rig, toolbox


def test_the_next_round_hears_of_the_ones_before() -> None:
    """What they wrote, so that a device is told of all that it allowed; what they had to think and to hold.

    An engine that is gone meanwhile has no rounds: all begins anew, with the context that is left by then.
    """
    rig, _ = calling()
    context = rig.desk.roster.numbered[1].context
    rig.desk.hearing.tools_ran(ToolsRan(1, 1, ("r",)))
    rig.crash()
    orders = [order for order in rig.engine.orders if isinstance(order, Submit)]
    assert [order.spent for order in orders] == [0, 3, 0]
    assert [order.reasoning_budget for order in orders] == [5, 3, 5]
    assert [order.context for order in orders] == [0, context, 0]
    assert context > 0


def test_enough_of_the_thinking_between_two_rounds() -> None:
    """The engine knows no such question just then: the next round is given next to nothing to think."""
    rig, _ = calling()
    rig.desk.sharing.end_reasoning(rig.desk.roster.numbered[1])
    rig.desk.hearing.tools_ran(ToolsRan(1, 1, ("r",)))
    budgets = [order.reasoning_budget for order in rig.engine.orders if isinstance(order, Submit)]
    assert budgets == [5, 1]


def test_a_question_that_is_taken_back_as_a_round_ends() -> None:
    """Its calls are not made: the engine had written them before it heard of the cancel."""
    rig, toolbox = Rig(), Listening()
    rig.desk.calling.toolbox = toolbox
    job = rig.ask(1, tools=Offer(local=("t",)))
    rig.measured(1)
    rig.desk.hearing.engine_said(Started(1))
    rig.desk.cancel(job)
    calls = (Call("c", "t", "{}"),)
    rig.desk.hearing.engine_said(msgspec.structs.replace(ended(1, "", "tool_calls"), calls=calls))
    assert (rig.journal.finished[1]["type"], job.progress.calls) == ("cancelled", ())


@pytest.mark.parametrize("how", ["cancel", "deadline", "crash"])
def test_a_question_that_ends_gives_its_calls_up(how: str) -> None:
    """So does one that the engine's end has begin anew; one that gets its results has nothing to give up."""
    rig, toolbox = calling()
    match how:
        case "cancel":
            rig.desk.cancel(rig.desk.roster.numbered[1])
        case "deadline":
            rig.clock.now += 61
            rig.desk.expire(rig.clock())
        case _:
            rig.crash()
    assert toolbox.given_up == [1]
    rig, toolbox = calling()
    rig.desk.hearing.tools_ran(ToolsRan(1, 1, ("r",)))
    rig.desk.hearing.engine_said(ended(1, "so"))
    assert (rig.journal.finished[1]["text"], toolbox.given_up) == ("so", [])
