"""Knobs of how a training notices that it went wrong, and what it does then: the rules of a restart, and of memory that runs out."""

from typing import Annotated, Literal

from pydantic import Field

from tts.config.knob import Section


class Remedy(Section):
    """What changes with one restart. Factors multiply with those of the restarts before; the order of the data changes each time."""

    learning_rate: Annotated[float, Field(gt=0, le=1, description="Factor of optimiser.learning_rate.")] = 1.0
    clip_norm: Annotated[float, Field(gt=0, le=1, description="Factor of optimiser.clip_norm.")] = 1.0
    guided_attention: Annotated[
        float, Field(ge=1, description="Factor of guided_attention.weight, whose fading begins anew at the restart where this is above 1.")
    ] = 1.0
    precision: Annotated[Literal["keep", "fp32"], Field(description="fp32: from here on without half precision.")] = "keep"


class RecoveryConfig(Section):
    """When a training goes back to a checkpoint that was proven healthy, and what it changes: the rules of docs/recovery.md."""

    max_skipped_updates: Annotated[int, Field(ge=1, description="Non-finite updates in a row that lead to a restart.")] = 20
    divergence_factor: Annotated[
        float, Field(gt=1, description="A training loss, smoothed over 20 steps, above this many times its lowest counts as diverging.")
    ] = 3.0
    divergence_steps: Annotated[int, Field(ge=1, description="Diverging steps in a row that lead to a restart.")] = 50
    aligned_diagonality: Annotated[
        float, Field(ge=0, le=1, description="Diagonality in a validation from which on attention counts as found; only then can it collapse.")
    ] = 0.6
    collapse_share: Annotated[
        float, Field(ge=0, lt=1, description="Of its best: diagonality below, once guided attention has faded, counts as collapsed; 0: never.")
    ] = 0.6
    collapse_validations: Annotated[
        int, Field(ge=1, description="Validations in a row with collapsed attention, or gate, that lead to a restart.")
    ] = 2
    probation_steps: Annotated[
        int, Field(ge=0, description="Steps that must have gone well after a checkpoint before it is proven healthy, so that a restart may use it.")
    ] = 200
    remedies: Annotated[
        tuple[Remedy, ...],
        Field(description="The ladder: what the first restart changes, the second, and so on. When it ends, training has diverged."),
    ] = (
        Remedy(learning_rate=0.5),
        Remedy(learning_rate=0.5, clip_norm=0.5, guided_attention=2.0),
        Remedy(learning_rate=0.2, clip_norm=0.5, precision="fp32"),
    )
    evidence_files: Annotated[
        int, Field(ge=0, description="Skipped updates, a run's first, of which all is kept that `tts replay` needs: each as large as the weights.")
    ] = 2
    memory_share: Annotated[
        float, Field(ge=0, le=1, description="Share of the container's or machine's memory at which caches are dropped, or training stops; 0: never.")
    ] = 0.85
    frame_budget_halvings: Annotated[
        int, Field(ge=0, description="Times that a device out of memory may halve data.frame_budget before training gives up.")
    ] = 3
