"""The chat template that the settings name in place of the model's own. Read by the engine, and by the doctor.

What a template is, and what is made of it, is `chat`'s; llama.cpp is not asked.
"""

from __future__ import annotations

from pathlib import Path

from edged import small_file
from edged.engine.chat import ChatTemplate
from edged.errors import ModelError

TEMPLATE_BYTES_MAX = 256 * 1024


def load(path: Path, *, bos: str = "", eos: str = "") -> ChatTemplate:
    """The template in a file.

    Args:
        path: as the settings have it.
        bos: text of the model's token that begins a prompt.
        eos: of the one that ends an answer.

    Raises:
        ModelError: it cannot be read, or is no template; the text names file and setting.
    """
    try:
        return ChatTemplate(small_file.read(path, TEMPLATE_BYTES_MAX).decode(), bos=bos, eos=eos).hearing()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; correct model.chat_template") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: {error}; correct model.chat_template") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}; correct it, or model.chat_template") from error
