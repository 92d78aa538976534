"""From a `Configure` to a model that is ready: checks the file, loads it, reads its template. Engine process.

The checks come first because llama.cpp loads a file with damaged weights without a word, and because its own
messages about a wrong file do not say what to do.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edged.core.batching import rows_for
from edged.core.gguf import MAGIC, readable
from edged.core.gpu import why_unused
from edged.engine import llama, template_file
from edged.engine.chat import CHATML, ChatTemplate
from edged.engine.messages import Configure, ModelInfo
from edged.engine.ports import Chooser
from edged.engine.prepare import Preparation
from edged.engine.process import LoadedModel
from edged.errors import ModelError

if TYPE_CHECKING:
    from edged.engine.constraint import Constraints

HEAD_BYTES = 1 << 20


def load(setup: Configure, log: Callable[[str, str], None]) -> LoadedModel:
    """Load the model that `setup` names.

    Raises:
        ModelError: with the file, the reason, and what to do.
    """
    path = Path(setup.model_path)
    size = check_file(path, setup.sha256)
    complaints: list[str] = []
    loading = True

    def on_line(level: str, text: str) -> None:
        if level == "error" and loading:
            complaints.append(text)
        elif level in {"warning", "error"} and not loading:
            log("debug", text)  # an aborted pass is logged as an error there, and is none

    llama.start(on_line)
    try:
        model = llama.Model(path, gpu_layers=setup.gpu_layers)
        context = llama.Context(
            model,
            sequences=setup.slots,
            context=setup.context,
            batch_tokens=max(setup.batch_tokens or rows_for(model.width), setup.slots),
            threads=setup.decode_threads,
            kv_type=setup.kv_type,
            flash_attention=setup.flash_attention,
        )
    except ModelError as error:
        raise ModelError(f"{error}{why(complaints, setup.gpu_layers)}") from error
    loading = False
    gpus = llama.gpus() if setup.gpu_layers else ()
    llama.give_back()  # what the loader and the tokenizer's making have freed: 2 MB with 49k tokens, 6 with 152k
    template = _template(setup, model)
    preparation = Preparation(
        vocabulary=model,
        template=template,
        context=setup.context,
        system_prompt=setup.system_prompt,
        reasoning_budget=setup.reasoning_budget,
        delta_interval_s=setup.delta_interval_s,
        make_constraints=lambda: _make_constraints(model),
    )
    info = ModelInfo(
        name=setup.name or name_of(model.metadata, path),
        architecture=model.metadata.get("general.architecture", "unknown"),
        quantisation=model.file_type,
        file_bytes=size,
        parameters=model.parameters,
        context_trained=model.context_trained,
        sha256=setup.sha256,
        reasoning=template.tags is not None,
        kv_bytes_per_token=model.kv_bytes_per_token(setup.kv_type),
    )

    def make_chooser(*, temperature: float, top_p: float, seed: int) -> Chooser:
        return llama.Sampler(context, temperature=temperature, top_p=top_p, seed=seed)

    return LoadedModel(
        model,
        context,
        make_chooser,
        preparation,
        info,
        _state_key(setup, path),
        gpus,
        "; ".join(why_unused(llama.gpu_backends())) if setup.gpu_layers and not gpus else "",
    )


def name_of(metadata: Mapping[str, str], path: Path) -> str:
    """What `info` and each answer call the model: the file's own name, as long as one in the settings may be."""
    return readable(metadata.get("general.name", "").strip()) or path.stem


def _make_constraints(model: llama.Model) -> Constraints:
    """What compiles schemas: tens of megabytes for those who use it (`tests/bench/memory.py`)."""
    from edged.engine.constraint import Constraints  # noqa: PLC0415
    from edged.engine.llama.tables import grammar_tables  # noqa: PLC0415

    return Constraints(grammar_tables(model))


def why(complaints: Sequence[str], gpu_layers: int) -> str:
    """What llama.cpp said first of a load that failed, as the rest of a sentence, or ""."""
    said = f" (llama.cpp: {complaints[0][:200]})" if complaints else ""
    if gpu_layers and any("allocate" in complaint for complaint in complaints):
        said += "; where that is the GPU's memory, lower engine.gpu_layers"
    return said


def check_file(path: Path, sha256: str | None) -> int:
    """Bytes of the file, after what can be told without llama.cpp has been checked.

    Raises:
        ModelError: it is missing, no GGUF, or not the file whose SHA-256 the settings name.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # opening a pipe would wait for ever
            raise ModelError(f"{path}: this is no regular file; put the model there or correct model.path")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            magic = file.read(len(MAGIC))
            if magic != MAGIC:
                head = magic.decode("latin-1")
                raise ModelError(
                    f"{path}: this is no GGUF file (it begins with {head!a}); set model.path to a model in GGUF"
                )
            if sha256 is not None:
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != sha256:
                    raise ModelError(
                        f"{path}: the file's SHA-256 is {digest}, model.sha256 wants {sha256}; "
                        "copy the file again, or correct the setting"
                    )
    except OSError as error:
        raise ModelError.unread(path, error) from error
    return size


def _state_key(setup: Configure, path: Path) -> str:
    """Names all that a state of the KV cache depends on; of a file without a SHA-256, what tells it from others."""
    with path.open("rb") as file:
        stat_ = os.fstat(file.fileno())
        # The metadata stand at the file's beginning; a file that is written anew gets another time.
        identity = f"{stat_.st_size} {stat_.st_mtime_ns} {hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()}"
    # llama.cpp writes the number of streams into a state and wants to find it again. By the size of a stream it
    # chooses between two sets of angles, where a model was trained with both (LongRoPE: Phi-3, Phi-4-mini).
    shape = f"{setup.slots} {setup.context}"
    parts = [setup.sha256 or identity, setup.kv_type, shape, llama.version()]
    if setup.flash_attention == "off":
        # As llama.cpp keeps them then. With it a key stays what it was before there was a choice.
        parts.append("values transposed")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _template(setup: Configure, model: llama.Model) -> ChatTemplate:
    bos, eos = model.special_text("bos"), model.special_text("eos")
    if setup.chat_template is not None:
        return template_file.load(Path(setup.chat_template), bos=bos, eos=eos)
    try:
        return ChatTemplate(model.chat_template or CHATML, bos=bos, eos=eos).hearing()
    except ModelError as error:
        raise ModelError(
            f"{setup.model_path}: {error}; name a file with another in model.chat_template"
        ) from error
