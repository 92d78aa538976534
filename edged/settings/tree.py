"""The settings themselves: a frozen tree of sections, each field with its type, bounds, default and meaning.

No file is read here. The docstring under each field is its one description: the table of `configs/README.md` and
`edged config schema` are made from it. Numbers, truth values and lists are taken strictly, so `slots = true`
or `port = "1884"` is an error and not a guess; the environment, which knows only text, is turned into these
types in `environment`.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..core.topology import parse_cores
from .environment import Environment
from .heat import Heat
from .homeassistant import HomeAssistant
from .http import Http
from .leaves import Accepts, DefaultWords
from .network import Mqtt, Node
from .scalars import (
    KIB,
    MIB,
    Cores,
    Flag,
    ModelName,
    Place,
    Seconds,
    Section,
    Sha256,
    Threads,
    Tokens,
    at_least,
    at_most,
    refuse,
)
from .sessions import Sessions
from .tools import Tools
from .upstream import Upstream


class Model(Section):
    """The language model."""

    path: Place
    """The model's GGUF file."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, checked before loading: corrupt weights load without a complaint otherwise."""
    name: ModelName | None = None
    """Name shown in `info` and answers; without it the GGUF's own, or the file's."""
    system_prompt: Annotated[str, Accepts("text of at most 16384 bytes without NUL")] = ""
    """System prompt of questions that bring none, at most 16 KiB; empty for none."""
    chat_template: Place | None = None
    """Jinja file used in place of the chat template in the GGUF."""

    @field_validator("system_prompt")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value.encode(errors="replace")) > 16 * KIB or re.search("[\x00\ud800-\udfff]", value):
            raise refuse("at most 16384 bytes of UTF-8 text without NUL are accepted")
        return value


class Engine(Section):
    """The process that computes."""

    slots: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    """Questions answered at the same time."""
    context_max: Tokens = 2048
    """Tokens of prompt and answer together while the board is cool."""
    context_min: Annotated[Tokens, at_most("engine.context_max")] = 1024
    """Tokens of prompt and answer together when heat has taken all it may; at most `context_max`. Each time
    that the kernel ends the engine for want of memory takes 256 from that, down to this, until the next start."""
    batch_tokens: Annotated[int, Field(strict=True, ge=16, le=4096)] | None = None
    """Prompt tokens computed in one step, fewer let cancels in sooner; without it 128, of small models 256. A step
    takes an eighth of `hang_s` at most."""
    decode_threads: Threads | None = None
    """Threads while generating; chosen for the board without it."""
    prefill_threads: Threads | None = None
    """Threads while reading prompts; chosen for the board without it."""
    cores: Cores | None = None
    """Cores for the engine, such as `4-7` or `0,2`, no fewer than its threads; the big cores without it."""
    reasoning_budget: Annotated[int, Field(strict=True, ge=0, le=131072)] | None = None
    """Tokens of reasoning before the answer is asked for; a third of the context without it."""
    delta_interval_ms: Annotated[int, Field(strict=True, ge=0, le=2000)] = 80
    """Shortest time between two deltas of one answer; 0 sends every piece."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    """Type of the key-value cache; `q8_0` halves its memory."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    """llama.cpp's fused attention; `auto` where it can. `off` reads a short question behind a long prompt faster on
    some processors, and writes several answers side by side slower; `q8_0` needs it."""
    huge_pages: Literal["auto", "on", "off"] = "auto"
    """The model in pages of 2 MiB where the kernel gives them; `auto`: unless `edged calibrate` found it slower."""
    prefix_store_bytes: Annotated[int, Field(strict=True, ge=0, le=65_536 * MIB)] = 256 * MIB
    """Prompts kept on disk as computed, for after a restart; a day's writing has the same bound; 0 turns it off."""
    draft_max: Annotated[int, Field(strict=True, ge=0, le=3)] = 3
    """Tokens guessed from the text so far and tried beside the next one, where that is faster; 0: none."""
    lock_memory: Flag = False
    """Keep the engine's memory, the weights first, from being swapped out (mlockall)."""
    gpu_layers: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0
    """Layers computed on a GPU, where llama.cpp was built for one."""
    hang_s: Annotated[float, Field(strict=True, ge=5, le=3600)] = 120.0
    """Longest silence of an engine before it counts as hung and is restarted; one that is known to be fast is given
    less, 10 s at least. The longest that it may measure one question."""
    start_timeout_s: Annotated[float, Field(strict=True, ge=5, le=86400)] = 600.0
    """Longest time for checking and loading the model."""

    @field_validator("flash_attention")
    @classmethod
    def _fits_cache(cls, value: str, info: ValidationInfo) -> str:
        if value == "off" and info.data.get("kv_type") == "q8_0":
            raise refuse('"auto" and "on" are accepted with engine.kv_type "q8_0"')
        return value

    @field_validator("cores")
    @classmethod
    def _rising(cls, value: str | None) -> str | None:
        try:
            parse_cores(value or "0")
        except ValueError:
            raise refuse("core numbers and rising ranges, as in 4-7 or 0,2, are accepted") from None
        return value

    @field_validator("cores")
    @classmethod
    def _enough(cls, value: str | None, info: ValidationInfo) -> str | None:
        count = None if value is None else len(parse_cores(value))
        for name in ("decode_threads", "prefill_threads"):
            if count is not None and (info.data.get(name) or 0) > count:
                raise refuse(f"as many cores as engine.{name} ({info.data[name]}) or more are accepted")
        return value

    def core_set(self) -> frozenset[int] | None:
        """The numbers in `cores`; None where the cores are to be found."""
        return None if self.cores is None else frozenset(parse_cores(self.cores))


class Limits(Section):
    """What one question, one client and all together may take."""

    payload_bytes: Annotated[int, Field(strict=True, ge=KIB, le=MIB)] = 64 * KIB
    """Largest question."""
    queue_jobs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 64
    """Questions waiting or running, all clients together."""
    queue_bytes: Annotated[
        int, Field(strict=True, ge=KIB, le=1024 * MIB), at_least("limits.payload_bytes")
    ] = 4 * MIB
    """Payload bytes of these questions; at least `payload_bytes`."""
    client_jobs: Annotated[int, Field(strict=True, ge=1, le=10_000), at_most("limits.queue_jobs")] = 16
    """Questions of one client waiting or running; at most `queue_jobs`."""
    messages: Annotated[int, Field(strict=True, ge=1, le=1024)] = 64
    """Messages in one question."""
    stop_sequences: Annotated[int, Field(strict=True, ge=0, le=64)] = 8
    """Stop sequences in one question."""
    answer_tokens: Annotated[int, Field(strict=True, ge=1, le=131072)] | None = None
    """Tokens, thinking included, of answers to questions that bring no `max_tokens`, as plain text never does; what
    the context has left without it."""
    deadline_max_s: Seconds = 86_400
    """Longest deadline a question may ask for."""
    deadline_default_s: Annotated[Seconds, at_most("limits.deadline_max_s")] = 600
    """Deadline of questions that bring none; at most `deadline_max_s`."""
    attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    """Times a question is tried when the engine breaks under it; then it is refused as `poison`."""


class Journal(Section):
    """What is kept on disk about questions."""

    max_age_s: Annotated[int, Field(strict=True, ge=60, le=31_536_000)] = 604_800
    """How long finished questions and their answers are kept."""
    max_bytes: Annotated[int, Field(strict=True, ge=MIB, le=65_536 * MIB)] = 64 * MIB
    """Size of the journal above which the oldest finished questions go."""


class Cache(Section):
    """Answers that are given again to the same question, where sampling leaves nothing to chance."""

    answers: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 256
    """Answers kept; 0 computes each question for itself."""
    max_bytes: Annotated[int, Field(strict=True, ge=KIB, le=1024 * MIB)] = 4 * MIB
    """Memory for them."""
    keep_s: Seconds = 3600
    """Age at which an answer is forgotten."""


class Health(Section):
    """The `health` topic."""

    interval_s: Annotated[float, Field(strict=True, ge=1, le=3600)] = 15.0
    """Time between two messages on `health`; a change of level is told at once."""


class Metrics(Section):
    """Numbers for Prometheus."""

    textfile: Place | None = None
    """File for node_exporter's textfile collector, written anew with every `health`; its name ends in `.prom`."""

    @field_validator("textfile")
    @classmethod
    def _collected(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise refuse("a file whose name ends in .prom is accepted: node_exporter passes over all others")
        return value


class Admin(Section):
    """What operators may do from afar, and on this machine."""

    enabled: Flag = False
    """Hear orders on the `admin` topics; the broker's ACL says who may send them."""
    models: Place | None = None
    """Folder of the GGUF files that the order `model` may name; none may be named without it."""
    socket: Annotated[
        Place | None, DefaultWords("`/run/edged/control.sock` under systemd, else in `paths.state`")
    ] = None
    """Unix socket for `edged drain`, `undrain`, `status`; for root and the group of the service."""


class Log(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity written; `debug` has each station of a question's way. No level writes its text."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal and in the journal, which has the fields besides; JSON lines elsewhere."""


class Paths(Section):
    """Where the machine is read and the state is kept."""

    sys: Place = Path("/sys")
    """Root of sysfs; a fixture tree in tests."""
    proc: Place = Path("/proc")
    """Root of procfs; a fixture tree in tests."""
    state: Place = Path("/var/lib/edged")
    """Folder for what must outlive a restart."""


class Settings(BaseSettings):
    """All settings of one node. Made by `load`; equal trees mean equal behaviour."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    node: Node = Field(default_factory=Node)
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    upstream: Upstream = Upstream()
    model: Model
    engine: Engine = Engine()
    limits: Limits = Limits()
    sessions: Sessions = Sessions()
    tools: Tools = Tools()
    journal: Journal = Journal()
    heat: Heat = Heat()
    cache: Cache = Cache()
    health: Health = Health()
    metrics: Metrics = Metrics()
    homeassistant: HomeAssistant = HomeAssistant()
    admin: Admin = Admin()
    log: Log = Log()
    paths: Paths = Paths()

    @property
    def http_alone(self) -> bool:
        """Whether questions are meant to come over HTTP alone: it is on, and nothing is said of a broker."""
        return self.http.enabled and "mqtt" not in self.model_fields_set

    def control_socket(self) -> Path:
        """Where the daemon listens for orders of this machine; systemd.exec(5) has RUNTIME_DIRECTORY."""
        folder = os.environ.get("RUNTIME_DIRECTORY") or self.paths.state
        return self.admin.socket or Path(folder) / "control.sock"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our reading of the environment over what `load` read; no other source."""
        del env_settings, dotenv_settings, file_secret_settings
        return Environment(settings_cls), init_settings
