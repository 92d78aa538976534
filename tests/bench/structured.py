"""Answers that follow a schema, completed per second: edged against llama.cpp's `llama-server`.

    python tests/bench/structured.py --llama-server PATH [--model smollm|r1|FILE] [--rounds 5] [--json FILE]

The ten schemas of tests/schemas with their prompts, each asked of both servers in turn with the same seed, sampling
(temperature 0.6, top_p 0.95) and bound of tokens; edged over MQTT, llama-server over HTTP on loopback. One question
at a time, then four together. An answer counts when it parses and validates; the rate is valid answers by the time
that all took, good or bad. Both sample on their own, so their texts, and with them their lengths, differ: tokens
a second are shown beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from bench import end_to_end, peers, rig  # noqa: E402 - found through the path above
from bench.rig import BenchDevice  # noqa: E402

FILES = sorted((Path(__file__).parents[1] / "schemas").glob("*.json"))
TOKENS = 320
TOGETHER = 4
SAMPLING = {"temperature": 0.6, "top_p": 0.95}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question: whether it is valid, and how many tokens it took."""

    valid: bool
    tokens: int


def judge(text: str, schema: Any, tokens: int) -> Outcome:
    """Read an answer back."""
    try:
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
    except (ValueError, jsonschema.ValidationError):
        return Outcome(valid=False, tokens=tokens)
    return Outcome(valid=True, tokens=tokens)


@dataclass(frozen=True, slots=True)
class Bench:
    """Both servers."""

    devices: list[BenchDevice]
    server: peers.Server

    def edged(self, client: int, told: Any, seed: int) -> Outcome:
        """Ask over MQTT."""
        wanted = {"type": "json_schema", "json_schema": {"schema": told["schema"]}}
        asked = self.devices[client].ask(
            told["prompt"],
            max_tokens=TOKENS,
            seed=seed,
            response_format=wanted,
            reasoning={"budget": 0},
            **SAMPLING,
        )
        asked.over.wait(rig.WAIT_S)
        done = asked.done
        if done["type"] != "done":
            return Outcome(valid=False, tokens=0)
        return judge(done["text"], told["schema"], asked.tokens)

    def llama_server(self, _client: int, told: Any, seed: int) -> Outcome:
        """Ask over HTTP."""
        messages = [{"role": "user", "content": told["prompt"]}]
        text, tokens = self.server.complete(
            messages,
            {"n_predict": TOKENS, "seed": seed, "json_schema": told["schema"], "top_k": 0, **SAMPLING},
        )
        return judge(text, told["schema"], tokens)

    def run(self, who: str, together: int, seed: int) -> dict[str, float]:
        """All ten schemas once, so many at a time: valid answers and tokens a second, and the valid share."""
        ask = self.edged if who == "edged" else self.llama_server
        questions = [json.loads(file.read_text("utf-8")) for file in FILES]
        begun = time.monotonic()
        with ThreadPoolExecutor(together) as pool:
            clients = [number % together for number in range(len(questions))]
            outcomes = list(pool.map(lambda client, told: ask(client, told, seed), clients, questions))
        took_s = time.monotonic() - begun
        return {
            "valid answers/s": sum(each.valid for each in outcomes) / took_s,
            "tokens/s": sum(each.tokens for each in outcomes) / took_s,
            "valid": sum(each.valid for each in outcomes) / len(outcomes),
        }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--model", default="smollm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = end_to_end.model_path(options.model)
    engine: dict[str, Any] = {"slots": TOGETHER}
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        broker, daemon = stack.enter_context(rig.node({"model": {"path": str(path)}, "engine": engine}))
        info = daemon.wait_info()
        setup = end_to_end.bare_setup(info, path)
        thinks = bool(info["model"]["reasoning"])
        server, _ = stack.enter_context(peers.llama_server(options.llama_server, setup, thinks=thinks))
        devices = [
            stack.enter_context(contextlib.closing(BenchDevice(broker, f"bench-{number}")))
            for number in range(TOGETHER)
        ]
        bench = Bench(devices, server)
        neighbours = rig.Neighbours()
        for number in range(options.rounds + 1):
            for together in (1, TOGETHER):
                for who in ("edged", "llama-server"):
                    told = bench.run(who, together, number + 1)
                    if number == 0:
                        continue  # tables and prompts are new to both
                    for what, value in told.items():
                        found.setdefault(f"{together} at a time: {what}", {}).setdefault(who, []).append(
                            value
                        )
        others = neighbours.share()
    ratios = {
        name: rig.ratio(values["edged"], values["llama-server"])
        for name, values in found.items()
        if all(values["llama-server"])
    }
    result = {
        "machine": rig.machine(),
        "model": path.name,
        "others_share": others,
        "rounds": found,
        "ratio_to_llama_server": ratios,
    }
    rows: list[tuple[str, ...]] = [("", "edged", "llama-server", "edged : llama-server")]
    for name, values in found.items():
        ratio = ratios.get(name)
        medians = [f"{statistics.median(values[who]):.2f}" for who in ("edged", "llama-server")]
        rows.append((name, *medians, "" if ratio is None else f"x {ratio:.2f}"))
    threads = f"{info['decode_threads']} and {info['prefill_threads']} threads"
    rig.show(f"{path.name}, {threads}, ten schemas, others took {others:.0%} of the cores; medians", rows)
    rig.save(options.json, result)


if __name__ == "__main__":
    main()
