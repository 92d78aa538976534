"""What edged costs on top of llama.cpp: from an MQTT device's question to its answer, against a bare loop.

    python tests/bench/end_to_end.py [--model smollm|r1|FILE] [--threads N] [--rounds 9] [--json FILE]

Same model, cores, threads, huge pages, KV cache, prompt length and greedy sampling on both sides, in turns, so
that whatever else the machine does touches both; a ratio is the median over neighbouring runs. Mosquitto and the
device run on this machine too, and use its cores: a real device would not. `r1` is the shape of
DeepSeek-R1-Distill-Qwen-1.5B with random weights (1.07 GB, made the first time), thinking switched off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import rig  # noqa: E402 - found through the path above
from bench.rig import BenchDevice, Worker, cpu_percent, memory_bytes, percentile, ratio, together_bytes  # noqa: E402
from r1model import bench_model  # noqa: E402

from edged.demo_model import ensure_demo_model  # noqa: E402
from edged.engine.environment import environment  # noqa: E402

SHORT = "Write a very long and detailed story about a lighthouse keeper and the sea, with many chapters."
SENTENCE = "The pump in hall three runs at 1480 turns a minute and its bearing is at 61 degrees. "
LONG = SENTENCE * 26 + SHORT
"""A prompt of some 600 tokens."""
STATUS_ROUNDS = 300
IDLE_S = 10.0


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, help="of an answer; 256 for smollm, 96 otherwise")
    parser.add_argument("--delta-interval-ms", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = model_path(options.model)
    tokens = options.tokens or (256 if options.model == "smollm" else 96)
    # The bare loop computes token by token as well: what guessing gains, `speculation.py` tells.
    engine: dict[str, Any] = {"slots": options.slots, "draft_max": 0}
    if options.threads:
        engine |= {"decode_threads": options.threads, "prefill_threads": options.threads}
    if options.delta_interval_ms is not None:
        engine["delta_interval_ms"] = options.delta_interval_ms
    with rig.node({"model": {"path": str(path)}, "engine": engine}) as (broker, daemon):
        info = daemon.wait_info()
        bare = Worker("bare_loop.py", bare_setup(info, path), environment(os.environ))
        device = BenchDevice(broker, "bench")
        try:
            result = {
                "machine": rig.machine(),
                "model": path.name,
                "slots": info["slots"],
                "decode_threads": info["decode_threads"],
                "prefill_threads": info["prefill_threads"],
                "answers": answers(device, bare, options.rounds, tokens),
                "idle": idle(daemon),
                "status": saturated(broker, info["slots"]),
                "memory": memory(daemon, bare, info),
            }
        finally:
            device.close()
            bare.close()
    tell(result)
    rig.save(options.json, result)


def model_path(name: str) -> Path:
    """The file that a name stands for."""
    match name:
        case "smollm":
            return ensure_demo_model()
        case "r1":
            return bench_model()
        case _:
            return Path(name).resolve()


def bare_setup(info: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same set-up as the node's."""
    return {
        "model": str(path),
        "slots": info["slots"],
        "context": info["context_max"],
        "batch_tokens": 256,
        "decode_threads": info["decode_threads"],
        "prefill_threads": info["prefill_threads"],
        "cores": info["cores"]["engine"],
    }


def answers(device: BenchDevice, bare: Worker, rounds: int, tokens: int) -> dict[str, Any]:
    """Decode rates and times to the first piece, round by round."""
    found: dict[str, list[float]] = {
        name: []
        for name in (
            *("bare_decode", "engine_decode", "device_decode", "tokens"),
            *("bare_short_ms", "device_short_ms", "bare_long_ms", "device_long_ms"),
            "others",
        )
    }
    neighbours = rig.Neighbours()
    for number in range(rounds + 1):
        asked = device.ask(SHORT, max_tokens=tokens, reasoning={"budget": 0}).wait()
        usage = asked.done["usage"]
        run = bare.call({"prompts": [SHORT], "prompt_tokens": usage["prompt_tokens"], "count": asked.tokens})
        long = device.ask(LONG, max_tokens=2, reasoning={"budget": 0}).wait()
        read = long.done["usage"]["prompt_tokens"]
        bare_long = bare.call({"prompts": [LONG], "prompt_tokens": read, "count": 1})
        others = neighbours.share()
        if number == 0:
            continue  # warm caches and clocks
        found["others"].append(others)
        found["tokens"].append(asked.tokens)
        found["bare_decode"].append((asked.tokens - 1) / run["decode_s"])
        found["engine_decode"].append(asked.done["timings"]["decode_tokens_per_s"])
        found["device_decode"].append(asked.tokens_per_s)
        found["bare_short_ms"].append(1000 * run["prefill_s"])
        found["device_short_ms"].append(asked.first_ms)
        found["bare_long_ms"].append(1000 * bare_long["prefill_s"])
        found["device_long_ms"].append(long.first_ms)
    return {
        "rounds": found,
        "prompt_tokens": {"short": usage["prompt_tokens"], "long": read},
        "median": {name: round(statistics.median(values), 2) for name, values in found.items()},
        "ratio": {
            "device_decode": round(ratio(found["device_decode"], found["bare_decode"]), 3),
            "engine_decode": round(ratio(found["engine_decode"], found["bare_decode"]), 3),
        },
        "extra_ms": {
            length: round(median_of_differences(found[f"device_{length}_ms"], found[f"bare_{length}_ms"]), 2)
            for length in ("short", "long")
        },
    }


def median_of_differences(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the differences of neighbouring runs."""
    return statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def idle(daemon: Any) -> dict[str, float]:
    """CPU use of both processes while nobody asks."""
    time.sleep(1)
    shares = cpu_percent([daemon.pid, daemon.engine_pid()], IDLE_S)
    return {"daemon_percent": shares[0], "engine_percent": shares[1]}


def saturated(broker: Any, slots: int) -> dict[str, float]:
    """Round trips of `status` while every slot computes."""
    devices = [BenchDevice(broker, f"load-{number}") for number in range(slots + 1)]
    running = [device.ask(SHORT, reasoning={"budget": 0}) for device in devices]
    while not any(asked.pieces_at for asked in running):
        time.sleep(0.05)
    trips: list[float] = []
    for _ in range(STATUS_ROUNDS):
        for number, asked in enumerate(running):
            if asked.over.is_set():  # keep the slots full
                running[number] = devices[number].ask(SHORT, reasoning={"budget": 0})
        trips.append(devices[-1].status_ms(running[-1]))
        time.sleep(0.02)
    for device, asked in zip(devices, running, strict=True):
        device.cancel(asked)
        device.close()
    return {
        "median_ms": round(statistics.median(trips), 2),
        "p99_ms": round(percentile(trips, 0.99), 2),
        "max_ms": round(max(trips), 2),
    }


def memory(daemon: Any, bare: Worker, info: dict[str, Any]) -> dict[str, int]:
    """What both processes hold, and how much of it is neither model nor KV cache."""
    ours, engine, theirs = (memory_bytes(pid) for pid in (daemon.pid, daemon.engine_pid(), bare.pid))
    known = info["model"]["bytes"] + bare.hello["kv_bytes"]
    return {
        "daemon_rss": ours["VmRSS"],
        "engine_rss": engine["VmRSS"],
        "engine_anonymous": engine["RssAnon"],
        "engine_file": engine["RssFile"],
        "bare_rss": theirs["VmRSS"],
        "bare_anonymous": theirs["RssAnon"],
        "model_and_kv": known,
        "beyond": together_bytes((daemon.pid, daemon.engine_pid())) - known,
    }


def tell(result: dict[str, Any]) -> None:
    """Print the tables."""
    median, ratios, extra = (result["answers"][name] for name in ("median", "ratio", "extra_ms"))
    threads = f"{result['decode_threads']} and {result['prefill_threads']} threads"
    rig.show(
        f"{result['model']}, {threads}, {len(result['answers']['rounds']['tokens'])} rounds, "
        f"{median['tokens']:g} tokens each, others took {median['others']:.0%} of the cores; "
        "medians, ratio to the bare loop",
        [
            ("", "bare loop", "edged", ""),
            *(
                (name, f"{median['bare_decode']:.1f}", f"{median[key]:.1f}", f"x {ratios[key]:.3f}")
                for name, key in (
                    ("decode at the device, tokens/s", "device_decode"),
                    ("decode in the engine, tokens/s", "engine_decode"),
                )
            ),
            *(
                (
                    f"first piece, {result['answers']['prompt_tokens'][length]} tokens, ms",
                    f"{median[f'bare_{length}_ms']:.1f}",
                    f"{median[f'device_{length}_ms']:.1f}",
                    f"+ {extra[length]:.1f}",
                )
                for length in ("short", "long")
            ),
        ],
    )
    status, idle_cpu = result["status"], result["idle"]
    rig.show(
        "the node itself",
        [
            ("", ""),
            ("idle CPU, % of a core: daemon", f"{idle_cpu['daemon_percent']}"),
            ("idle CPU, % of a core: engine", f"{idle_cpu['engine_percent']}"),
            ("status round trip, saturated, ms: median", f"{status['median_ms']}"),
            ("status round trip, saturated, ms: p99", f"{status['p99_ms']}"),
            *((f"memory, MB: {name}", f"{size / 1e6:.0f}") for name, size in result["memory"].items()),
        ],
    )


if __name__ == "__main__":
    main()
