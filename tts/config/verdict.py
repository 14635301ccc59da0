"""Knobs of synthesis, of the verdict on a voice, and of where results are tracked."""

from typing import Annotated, Literal

from pydantic import Field

from tts.config.knob import Section


class SynthesisConfig(Section):
    """Free-running synthesis."""

    gate_threshold: Annotated[float, Field(gt=0, lt=1, description="Stop where the gate's probability exceeds this.")] = 0.5
    max_frames_per_symbol: Annotated[float, Field(gt=0, description="Frames per symbol at which synthesis stops, whatever the gate says.")] = 25.0
    monotonic_attention: Annotated[
        bool, Field(description="A step stays at its symbol or moves on to the next one, with any attention; needs more steps than symbols.")
    ] = False
    griffin_lim_iterations: Annotated[int, Field(ge=1, le=1000, description="Iterations of Griffin-Lim.")] = 60
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the prenet's dropout and of Griffin-Lim's first phases.")] = 0


class EvaluationConfig(Section):
    """What is evaluated, and what passes."""

    sentences: Annotated[int, Field(ge=1, description="Held-out sentences that are spoken, at most.")] = 16
    listed_sentences: Annotated[int, Field(ge=1, description="Sentences shown with players and pictures in the report.")] = 6
    max_mel_cepstral_distortion: Annotated[float, Field(gt=0, description="dB; a voice above this fails.")] = 9.0
    min_stopped_share: Annotated[float, Field(ge=0, le=1, description="Share of sentences ended by the gate; below it a voice fails.")] = 0.8
    min_diagonality: Annotated[float, Field(ge=0, le=1, description="Mean share of attention near the diagonal; below it a voice fails.")] = 0.6


class TrackingConfig(Section):
    """Where runs are recorded."""

    backend: Annotated[Literal["mlflow", "jsonl", "none"], Field(description="MLflow, a file of JSON lines, or nothing.")] = "mlflow"
    uri: Annotated[str, Field(description="MLflow's URI, or a JSON lines file; empty: mlflow.db or tracking.jsonl beside the results.")] = ""
    experiment: Annotated[str, Field(min_length=1, description="MLflow experiment.")] = "smart-tuner-tts"
    registered_model: Annotated[str, Field(min_length=1, description="Name in the model registry.")] = "tacotron2"
