"""The contract of a processing stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made of a batch. Rows are conserved: ``len(batch in) == events + suspects + rejects``."""

    events: pa.RecordBatch
    suspects: pa.RecordBatch | None = None
    rejects: pa.RecordBatch | None = None


class Stage(Protocol):
    """A step over record batches.

    The batch belongs to the caller and is never changed; the result may share its buffers. A batch may be empty.
    An exception means that nothing of the batch counts: the pipeline drops all state and recovers from its
    newest snapshot. A stage never asks the wall clock and never draws random numbers, unless ``output_only``.
    """

    @property
    def name(self) -> str:
        """Names the stage in snapshots and metrics."""
        ...

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Process one batch, in log order."""
        ...


class StatefulStage(Stage, Protocol):
    """A stage whose state is a fold over the log; its snapshot restores it exactly."""

    def snapshot(self) -> bytes:
        """The whole state, self-describing."""
        ...

    def restore(self, state: bytes) -> None:
        """Replace the state; raises ``StateError`` when ``state`` was taken under another configuration."""
        ...


def in_folds(stage: Stage) -> bool:
    """Whether state depends on the stage. One with a true ``output_only`` adds columns that no later stage reads: it has no
    state, changes no row's place, and a fold without output leaves it out."""
    return not getattr(stage, "output_only", False)
