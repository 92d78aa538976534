"""What a node holds beyond model file and KV cache: at rest, after a long prompt, after its first schema.

    python tests/bench/memory.py [--model smollm|r1|FILE] [--json FILE]

Pages of files that both processes map count once in "both". With passes of 256 and of 128 tokens
(`engine.batch_tokens`). The first schema brings llguidance and its tables of the vocabulary into memory: how long
that takes is how much longer it waits than the same one asked again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, rig  # noqa: E402 - found through the path above
from bench.rig import BenchDevice  # noqa: E402

from edged.adapters import model_file  # noqa: E402

SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}}}
BATCHES = (256, 128)
MOMENTS = ("at rest", "after a prompt of 700 tokens", "after the first schema")


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = end_to_end.model_path(options.model)
    found = {batch: measure(path, batch) for batch in BATCHES}
    rows: list[tuple[str, ...]] = [
        ("beyond model and KV cache, MB", *(f"passes of {one}" for one in BATCHES))
    ]
    for moment in MOMENTS:
        cells = [
            "{both:.0f} ({daemon:.0f} + {engine:.0f})".format(
                **{who: found[one][who][moment] for who in ("both", "daemon", "engine")}
            )
            for one in BATCHES
        ]
        rows.append((f"both (resident daemon + engine), {moment}", *cells))
    rows.append(("first schema waits longer, s", *(f"{found[one]['first_schema_s']:.2f}" for one in BATCHES)))
    rig.show(path.name, rows)
    rig.save(options.json, {"machine": rig.machine(), "model": path.name, "batches": found})


def measure(path: Path, batch: int) -> dict[str, Any]:
    """Megabytes of both processes at each moment, and seconds for the first schema."""
    engine = {"slots": 4, "batch_tokens": batch}
    found: dict[str, dict[str, float]] = {"both": {}, "daemon": {}, "engine": {}}
    with rig.node({"model": {"path": str(path)}, "engine": engine}) as (broker, daemon):
        info = daemon.wait_info()
        file = model_file.read(path)
        known = info["model"]["bytes"] + file.shape.kv_bytes(info["slots"] * info["context_max"], "f16")
        device = BenchDevice(broker, "bench")

        def look(moment: str) -> None:
            found["daemon"][moment] = rig.memory_bytes(daemon.pid)["VmRSS"] / 1e6
            found["engine"][moment] = (rig.memory_bytes(daemon.engine_pid())["VmRSS"] - known) / 1e6
            found["both"][moment] = (rig.together_bytes((daemon.pid, daemon.engine_pid())) - known) / 1e6

        def ask(prompt: str, **fields: Any) -> float:
            asked = device.ask(prompt, max_tokens=4, reasoning={"budget": 0}, **fields).wait()
            return asked.done_at - asked.sent

        look(MOMENTS[0])
        ask(end_to_end.LONG)
        look(MOMENTS[1])
        first_s = ask("Is 85 C hot?", response_format=SCHEMA)
        look(MOMENTS[2])
        later_s = statistics.median(ask("Is 85 C hot?", response_format=SCHEMA) for _ in range(3))
        device.close()
    return {**found, "first_schema_s": first_s - later_s}


if __name__ == "__main__":
    main()
