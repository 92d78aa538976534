"""What must hold of a mix of `desk_mix` or `node_mix` once it rests: each question ended once, as if alone."""

# ruff: noqa: SLF001 - that nothing is left anywhere, no public word tells

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import msgspec
from desk_mix import ENDS, Asked, Key, Mix, is_final
from random_engine import answer_to, as_json

from edged.core.records import Publish
from edged.core.topics import INSIDE as HTTP


def check_all(mix: Mix) -> None:
    """What holds for every mix once it rests."""
    check_nothing_is_left(mix)
    check_all_were_told(mix)
    if mix.shape.forgets:  # what the journal forgets may be asked and answered anew
        return
    check_ends(mix)
    check_answers(mix)
    check_sessions(mix)
    for key, asked in mix.asked.items():
        if not key[0].startswith(HTTP):  # who hangs up and asks again misses some
            check_order(asked)


def check_nothing_is_left(mix: Mix) -> None:
    """No question, run, conversation, message or delivery is left anywhere."""
    desk, intake, outbox = mix.desk, mix.intake, mix.outbox
    roster, joint = desk.roster, desk.sharing.joint
    assert [(job.key, job.state, job.submitted) for job in roster.named.values()] == []
    assert (roster.numbered, roster.of_client, roster.size_bytes) == ({}, {}, 0)
    assert (desk.sessions._open, desk.blame._unmeasured, desk.course.running) == ({}, {}, 0)
    assert (joint._numbered, joint._keyed, desk.giving.head_starts.free) == ({}, {}, True)
    assert (mix.engine.runs, mix.server.runs) == ({}, {})
    assert desk.giving.away is None or desk.giving.away._runs == {}
    assert (intake._parked, len(intake.unstored)) == ({}, 0)
    assert (len(outbox), list(outbox._waiting), outbox._under_way, outbox._elsewhere) == (0, [], {}, {})
    assert mix.unacknowledged == {}, "the broker was not told that the node has it"
    assert (mix.forget, desk.forgetting.due) == ("", False) or not mix.engine.ready
    assert mix.open == {}, "somebody waits over HTTP for an end"
    assert mix.journal.store.counts.outbox == mix.journal.store.counts.unfinished == 0
    assert mix.journal.sql.execute("SELECT * FROM outbox").fetchall() == []


def check_all_were_told(mix: Mix) -> None:
    """Every device has heard the end of its question, or a refusal, where it listens; over HTTP it may be gone."""
    for key, asked in mix.asked.items():
        if key[0].startswith(HTTP):
            continue
        assert asked.ends or asked.refusals, f"{key} is never told"
        if mix.life == 1:  # a life before may have told it and not got round to forgetting its copy
            assert asked.listens is None, f"{key} is not told where it listens"


def stored(mix: Mix) -> list[tuple[int, Key, dict[str, Any]]]:
    """Number, client and id, and the last message of all questions in the journal, in their order."""
    found = []
    for number, client, name, finished_s, terminal in mix.journal.sql.execute(
        "SELECT number, client, id, finished_s, terminal FROM jobs ORDER BY number"
    ):
        assert finished_s is not None, f"{name} has no end"
        if terminal is None:  # it was to be asked again
            continue
        publishes = msgspec.msgpack.decode(terminal, type=tuple[Publish, ...])
        found.append((number, (client, name), json.loads(publishes[0].payload)))
    return found


def check_ends(mix: Mix) -> None:
    """The end that the journal has is the only one; nothing is cancelled that nobody has taken back."""
    assert set(mix.finished.values()) <= {1}
    kept = {key: end for _, key, end in stored(mix)}
    for key, asked in mix.asked.items():
        if key not in kept:
            again = asked.refusals or (asked.ends and not any(map(is_final, asked.ends)))
            assert again or key[0].startswith(HTTP), f"{key} is lost"
        elif not key[0].startswith(HTTP):
            assert asked.ends, f"{key} is never told"
            finals = [end for end in asked.ends if is_final(end)]
            assert all(end == kept[key] for end in finals), f"{key} has two ends"
            assert asked.cancelled or kept[key]["type"] != "cancelled", f"nobody has taken {key} back"


def check_answers(mix: Mix) -> None:
    """Each answer is the one to its question and all that its session said before, or the beginning of it."""
    said: dict[tuple[str, str], list[str] | None] = defaultdict(list)
    for _, (client, name), end in stored(mix):
        asked = mix.asked[client, name].fields
        session = (client, asked["session"]) if "session" in asked else None
        before = [] if session is None else said[session]
        if end["type"] != "done":
            continue
        if "tools" in asked or before is None:
            known = None  # no test repeats here what is said of calls and results
        else:
            known = [*before, asked["prompt"]]
            whole = as_json(answer_to(known)) if "response_format" in asked else answer_to(known)
            cut = end["finish_reason"] == "deadline"
            assert whole.startswith(end["text"]) if cut else end["text"] == whole, (name, before)
        if session is not None and end["text"]:
            said[session] = None if known is None else [*known, end["text"]]


def check_sessions(mix: Mix) -> None:
    """Each session has the turns of its answered questions, in their order."""
    sql = mix.journal.sql
    turns: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (client, name), end in stored(mix):
        if end["type"] == "done" and end["text"] and "session" in (asked := mix.asked[client, name].fields):
            turns[client, asked["session"]].append(number)
    kept: dict[tuple[str, str], list[int]] = defaultdict(list)
    for client, name, number in sql.execute("SELECT client, name, number FROM session_turns ORDER BY number"):
        kept[client, name].append(number)
    assert kept == turns


def check_order(asked: Asked) -> None:
    """`seq` has no gaps: it goes on, begins anew with an attempt, or repeats deltas for who asked to resume."""
    last, over, first = -1, False, asked.told[0][0] if asked.told else 0
    refused: list[dict[str, Any]] = []
    for life, body in asked.told:
        seq, ends = body["seq"], body["type"] in ENDS
        if over:
            assert ends, asked.told
            continue
        over = is_final(body)
        again = (seq <= last and body["type"] == "delta") or (ends and (life > first or body in refused))
        assert seq in {0, last + 1} or again, (seq, last, asked.told)
        last = seq if seq in {0, last + 1} else last
        if ends and not over:  # it may be said again, or the question be asked anew
            refused.append(body)
            last = -1
