"""What an engine is told to load, as small as can be; a test names what it is about."""

from __future__ import annotations

from typing import Any

import msgspec

from edged.engine.messages import Configure

SMALLEST = Configure(
    model_path="none.gguf",
    sha256=None,
    name=None,
    chat_template=None,
    slots=1,
    context=256,
    batch_tokens=64,
    decode_threads=1,
    prefill_threads=1,
    cores=(),
    reasoning_budget=None,
    delta_interval_s=0.0,
    kv_type="f16",
    lock_memory=False,
    gpu_layers=0,
    system_prompt="",
)


def configured(**changed: Any) -> Configure:
    """That, but for what is named."""
    return msgspec.structs.replace(SMALLEST, **changed)
