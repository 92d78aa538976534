"""The contents of `info` and `health`: JSON objects made of what the parts know. Belongs to the dispatcher thread.

What is not known is left out, never zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from edged.core.records import Depth
from edged.node.desk import Desk
from edged.node.pools import Membership
from edged.node.supervision import Supervision

Json = dict[str, Any]


def info(about: Json, engine: Supervision, membership: Membership) -> Json:
    """Who this node is: what the settings and the board say, and what was loaded."""
    told: Json = {**about, "pools": list(membership.pools), **pools(membership), "engine": engine.phase}
    if engine.reason:
        told["reason"] = engine.reason
    ready = engine.ready_report
    if ready is None or not engine.ready:
        return told
    model = ready.model
    told["model"] = {
        "name": model.name,
        "architecture": model.architecture,
        "quantisation": model.quantisation,
        "bytes": model.file_bytes,
        "parameters": model.parameters,
        "context_trained": model.context_trained,
        "reasoning": model.reasoning,
    }
    if model.sha256 is not None:
        told["model"]["sha256"] = model.sha256
    told["cores"] = {**about["cores"], "engine": list(ready.cores)}
    told["rates"] = {
        "prefill_tokens_per_s": ready.prefill_tokens_per_s,
        "decode_tokens_per_s": ready.decode_tokens_per_s,
        "source": "calibration" if engine.setup.step_s > 0 else "warm-up",
    }
    return told


def work(desk: Desk, engine: Supervision) -> Json:
    """Queue, engine and counts."""
    told: Json = {
        "engine": engine.phase,
        "engine_restarts": engine.restarts,
        "queue": len(desk.roster) - desk.running,
        "active": desk.running,
        "counts": dataclasses.asdict(desk.replies.counts),
    }
    if desk.giving.away is not None:
        told["upstream"] = desk.giving.away.news()
    pulse = engine.pulse
    if pulse is not None:
        told["context"] = pulse.context
        told["kv_tokens"] = pulse.kv_tokens
        told["prefix_store"] = {"bytes": pulse.prefix_bytes, "loads": pulse.prefix_loads}
        told["drafts"] = {"tokens": pulse.drafted, "right": pulse.drafted_right}
        if pulse.decode_tokens_per_s:
            told["decode_tokens_per_s"] = pulse.decode_tokens_per_s
        if pulse.prefill_tokens_per_s:
            told["prefill_tokens_per_s"] = pulse.prefill_tokens_per_s
    return told


def pools(membership: Membership) -> Json:
    """Which pools deal us questions just now, and why others do not; nothing for a node without pools."""
    return {"membership": membership.as_json()} if membership.pools else {}


def journal(depth: Depth) -> Json:
    """How full the journal is, and why the disk refuses, where it does."""
    told: Json = {
        "unfinished": depth.unfinished,
        "outbox": depth.outbox,
        "sessions": depth.sessions,
        "bytes": depth.bytes,
    }
    if depth.failing:
        told["failing"] = depth.failing
    return told
