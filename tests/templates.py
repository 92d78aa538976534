"""Chat templates in the styles of well-known models: small ones of our own, with those models' control tokens.

What differs between the styles is what matters here: where the system message goes, or that there is none; what
stands around a turn; what the template refuses; what it does to the texts.
"""

from __future__ import annotations

from dataclasses import dataclass

TURNS = "{% for m in messages %}"
ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant/user/assistant') }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Style:
    """A template, its control tokens, and what it makes of system "S", user "U", assistant "A", user "V"."""

    source: str
    controls: tuple[str, ...]
    written: str


CHATML_TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
CHATML_GO = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML_TEXT = (
    "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

STYLES = {
    "chatml": Style(TURNS + CHATML_TURN + "{% endfor %}" + CHATML_GO, CHATML_TOKENS, CHATML_TEXT),
    "qwen2.5": Style(
        "{%- if messages[0]['role'] == 'system' %}"
        "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
        "{%- for m in messages %}{%- if m.role != 'system' or not loop.first %}"
        "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
        + CHATML_GO,
        CHATML_TOKENS,
        CHATML_TEXT,
    ),
    "qwen3": Style(
        "{%- for m in messages %}{%- set content = m.content if m.content is string else '' %}"
        "{%- if m.role == 'assistant' %}{%- if '</think>' in content %}"
        "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
        "{%- endif %}{%- endif %}",
        (*CHATML_TOKENS, "<think>", "</think>"),
        CHATML_TEXT,
    ),
    "llama3": Style(
        "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'"
        " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<bos><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "phi3": Style(
        "{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\\n' + m.content + '<|end|>\\n' }}"
        "{% elif m.role == 'user' %}{{ '<|user|>\\n' + m.content + '<|end|>\\n' }}"
        "{% elif m.role == 'assistant' %}{{ '<|assistant|>\\n' + m.content + '<|end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
    ),
    "phi4": Style(
        TURNS + "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
        "<|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>V<|im_end|>"
        "<|im_start|>assistant<|im_sep|>",
    ),
    "mistral": Style(
        "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
        "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}"
        "{%- for m in turns %}"
        + ALTERNATE
        + "{%- if m.role == 'user' %}{%- if loop.last and system is defined %}"
        "{{- '[INST] ' + system + '\\n\\n' + m.content + '[/INST]' }}{%- else %}"
        "{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}{%- else %}{{- ' ' + m.content | trim + eos_token }}"
        "{%- endif %}{%- endfor %}",
        ("[INST]", "[/INST]"),
        "<bos>[INST] U[/INST] A<eos>[INST] S\n\nV[/INST]",
    ),
    "mistral, early": Style(
        "{{ bos_token }}{% for m in messages %}" + ALTERNATE + "{% if m.role == 'user' %}"
        "{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        "<bos>[INST] S\n\nU [/INST]A<eos>[INST] V [/INST]",
    ),
    "gemma": Style(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}"
        + ALTERNATE
        + "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
        "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
    ),
    "gemma4": Style(
        "{{ bos_token }}{% if enable_thinking or messages[0].role == 'system' %}{{ '<|turn>system\n' }}"
        "{% if enable_thinking %}{{ '<|think|>\n' }}{% endif %}"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}{{ '<turn|>\n' }}"
        "{% endif %}{% for m in messages if m.role != 'system' %}"
        "{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<turn|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}"
        "{% if not enable_thinking %}{{ '<|channel>thought\n<channel|>' }}{% endif %}{% endif %}",
        ("<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>"),
        "<bos><|turn>system\n<|think|>\nS<turn|>\n<|turn>user\nU<turn|>\n<|turn>model\nA<turn|>\n"
        "<|turn>user\nV<turn|>\n<|turn>model\n",
    ),
    "system left out": Style(
        TURNS + "{% if m.role != 'system' %}" + CHATML_TURN + "{% endif %}{% endfor %}" + CHATML_GO,
        CHATML_TOKENS,
        "<|im_start|>user\nS\n\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    ),
    "generation": Style(
        TURNS + "{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"
        + CHATML_TURN
        + "{% endif %}{% endfor %}"
        + CHATML_GO,
        CHATML_TOKENS,
        CHATML_TEXT,
    ),
}
