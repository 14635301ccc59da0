"""Knobs of what goes in: text, audio analysis, quality control, batches. All but the batches belong to the fingerprint."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tts.config.knob import Search, Section


class TextConfig(Section):
    """How transcripts become symbols."""

    language: Annotated[Literal["en", "ru"], Field(description="Language of the transcripts: numbers, abbreviations and alphabet.")] = "en"
    unknown_symbol: Annotated[
        Literal["error", "drop"],
        Field(description="A character that is not in the symbol table: refuse the clip with the reason, or drop the character and count it."),
    ] = "error"


class AudioConfig(Section):
    """Mel analysis. The defaults are those of NVIDIA/tacotron2 and HiFi-GAN, so their vocoders fit."""

    sample_rate: Annotated[int, Field(ge=8000, le=48000, description="Hz; other recordings are resampled.")] = 22050
    window_length: Annotated[int, Field(ge=64, le=8192, description="Samples of the analysis window and of the FFT; even.")] = 1024
    hop_length: Annotated[int, Field(ge=16, le=4096, description="Samples between frames: 256 is 11.6 ms at 22,050 Hz.")] = 256
    mels: Annotated[int, Field(ge=8, le=256, description="Mel bands.")] = 80
    min_hz: Annotated[float, Field(ge=0, description="Hz, lower edge of the first band.")] = 0.0
    max_hz: Annotated[float, Field(gt=0, description="Hz, upper edge of the last band.")] = 8000.0
    log_floor: Annotated[float, Field(gt=0, description="Magnitudes are clamped to this before the logarithm.")] = 1e-5
    trim_db: Annotated[
        float, Field(ge=0, le=120, description="dB below the clip's peak under which leading and trailing sound is cut, 1 or more; 0 keeps all.")
    ] = 45.0

    @model_validator(mode="after")
    def _consistent(self) -> "AudioConfig":
        if self.window_length % 2:  # windows are centred on their frames, and an odd one has no inverse of the same length
            raise ValueError(f"window_length must be even, got {self.window_length}")
        if 0 < self.trim_db < 1:
            raise ValueError(f"trim_db must be 0 (keep all) or at least 1, got {self.trim_db}")
        if self.hop_length > self.window_length // 2:
            raise ValueError(f"hop_length must be at most half of window_length ({self.window_length}), got {self.hop_length}")
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError(f"max_hz must lie between min_hz ({self.min_hz}) and half of sample_rate ({self.sample_rate / 2}), got {self.max_hz}")
        return self


class QualityConfig(Section):
    """Which clips are not trained on, and when the whole corpus is refused."""

    min_seconds: Annotated[float, Field(gt=0, description="Seconds; shorter clips are rejected.")] = 0.4
    max_seconds: Annotated[float, Field(gt=0, description="Seconds; longer clips are rejected.")] = 15.0
    silence_dbfs: Annotated[float, Field(le=0, description="dBFS; a clip whose peak stays below is rejected as silent.")] = -45.0
    max_clipped_share: Annotated[float, Field(ge=0, le=1, description="Share of samples at full scale above which a clip counts as clipped.")] = 0.01
    rate_deviations: Annotated[
        float,
        Field(
            gt=0,
            description="Characters per second further than this many robust deviations from the median: rejected. One is 1.4826 MAD, "
            "at least 5 % of the median. Not looked at in corpora of fewer than 10 clips.",
        ),
    ] = 6.0
    max_rejected_share: Annotated[float, Field(ge=0, le=1, description="Share of rejected clips above which the corpus is refused.")] = 0.25

    @model_validator(mode="after")
    def _consistent(self) -> "QualityConfig":
        if self.min_seconds >= self.max_seconds:
            raise ValueError(f"max_seconds must exceed min_seconds ({self.min_seconds}), got {self.max_seconds}")
        return self


class DataConfig(Section):
    """Split and batches."""

    held_out_share: Annotated[float, Field(gt=0, lt=0.5, description="Share of clips kept out of training, to validate and evaluate on.")] = 0.05
    held_out_max: Annotated[int, Field(ge=1, description="At most this many clips are held out.")] = 100
    split_seed: Annotated[int, Field(ge=0, description="Seed of the choice of held-out clips.")] = 0
    frame_budget: Annotated[int, Field(ge=100, description="Mel frames in a batch, padding included."), Search(1000, 16000, log=True)] = 8000
    max_batch_size: Annotated[int, Field(ge=1, description="Utterances in a batch at most.")] = 64
