"""Why no layer is computed on a GPU though the settings ask for it, and what mends that. Pure."""

from __future__ import annotations

from collections.abc import Collection

BUILD = "build it for one as the README says under GPU, or set engine.gpu_layers to 0"
GPU_DROP_IN = "/etc/systemd/system/edged.service.d/gpu.conf"


def why_unused(backends: Collection[str]) -> tuple[str, str]:
    """What is missing, and what to do about it, where llama.cpp has found no GPU.

    Args:
        backends: kinds of GPU that this build of llama.cpp has code for, such as `vulkan`.
    """
    if not backends:
        return "this build of llama.cpp has no code for a GPU, so the CPU computes all layers", BUILD
    words = (
        f"llama.cpp is built for {' and '.join(backends)} and finds no GPU, so the CPU computes all layers"
    )
    mend = (
        f"see that its driver is installed and that this account may use it (group render; as a service: "
        f"systemd/edged-gpu.conf as {GPU_DROP_IN})"
    )
    if "vulkan" in backends:
        mend += (
            "; what vulkaninfo --summary calls a CPU is passed over unless GGML_VK_VISIBLE_DEVICES names it"
        )
    return words, mend
