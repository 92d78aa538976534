"""What a device hears of its question: replies as messages, and the one line that the log has of each job.

Belongs to the dispatcher thread. Deltas and `accepted` go straight to the broker; a terminal message is made
here, but the journal has it first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from edged.core import reply
from edged.core.job import Job
from edged.core.link import JSON, Outgoing
from edged.core.metrics import Latencies
from edged.core.records import Publish
from edged.core.topics import Topics
from edged.node.outbox import Line

TEXT = "text/plain; charset=utf-8"

log = structlog.get_logger()


@dataclass(slots=True)
class Counts:
    """What came and went since the start; published as health."""

    accepted: int = 0
    done: int = 0
    cancelled: int = 0
    errors: int = 0
    refused: int = 0
    duplicates: int = 0
    dropped: int = 0
    retained_ignored: int = 0
    cached: int = 0
    tokens: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def refuse(self, code: str) -> None:
        """Count a question that was turned away at the door, and why."""
        self.refused += 1
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def fail(self, code: str) -> None:
        """Count an accepted question that ended in an error, and why."""
        self.errors += 1
        self.failures[code] = self.failures.get(code, 0) + 1


@dataclass(slots=True)
class Replies:
    """Makes and sends replies, and counts them."""

    topics: Topics
    line: Line
    clock: Callable[[], float]
    counts: Counts = field(default_factory=Counts)
    latencies: Latencies = field(default_factory=Latencies)

    def send(self, job: Job, message: reply.Reply, *, qos: int) -> None:
        """Publish a reply that need not survive: the terminal message repeats all that matters."""
        self._publish(job, reply.encode(message), qos=qos)

    def delta(self, job: Job, kind: type[reply.Delta | reply.ReasoningDelta], text: str) -> None:
        """Publish the next piece of an answer, and keep it for `resume`."""
        seq = job.next_seq()
        payload = reply.encode(kind(id=job.question.id, seq=seq, text=text))
        job.keep_for_resume(seq, payload)
        log.debug("delta_sent", job_id=job.question.id, seq=seq)
        self._publish(job, payload, qos=0)

    def replay(self, job: Job, from_seq: int) -> None:
        """Send the deltas from `from_seq` on again."""
        for seq, payload in job.replay:
            if seq >= from_seq:
                self._publish(job, payload, qos=0)

    def last(self, job: Job, message: reply.Terminal, plain_text: str | None) -> tuple[Publish, ...]:
        """The messages that end a question, for the journal; the log has its line from here."""
        self._tell(job, message)
        question = job.question
        properties = {"content_type": JSON, "correlation": question.correlation}
        json = Publish(question.reply_to, reply.encode(message), properties)
        if plain_text is None:
            return (json,)
        return json, Publish(self.topics.text(question.client), plain_text.encode(), {"content_type": TEXT})

    def _publish(self, job: Job, payload: bytes, *, qos: int) -> None:
        question = job.question
        self.line.publish(
            Outgoing(question.reply_to, payload, qos=qos, correlation=question.correlation, content_type=JSON)
        )

    def _tell(self, job: Job, last: reply.Terminal) -> None:
        """One line a question."""
        duration_s = self.clock() - job.arrived
        fields: dict[str, object] = {
            "job_id": job.question.id,
            "client": job.question.client,
            "attempt": job.attempts,
            "duration_s": round(duration_s, 3),
        }
        match last:
            case reply.Done():
                self.counts.done += 1
                usage, timings = last.usage, last.timings
                self.latencies.answered(duration_s, timings)
                log.info(
                    "job_finished",
                    **fields,
                    finish_reason=last.finish_reason,
                    prompt_tokens=usage.prompt_tokens,
                    cached_tokens=usage.cached_tokens,
                    tokens=usage.completion_tokens,
                    queue_ms=timings.queue_ms,
                    prefill_ms=timings.prefill_ms,
                    decode_ms=timings.decode_ms,
                    tokens_per_s=timings.decode_tokens_per_s,
                )
            case reply.Cancelled():
                self.counts.cancelled += 1
                log.info("job_cancelled", **fields, tokens=last.usage.completion_tokens)
            case reply.Failed():
                self.counts.fail(last.code)
                log.warning("job_failed", **fields, code=last.code, reason=last.message)
