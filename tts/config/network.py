"""Knobs of the network: sizes, reduction factor, dropout."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tts.config.knob import Choices, Search, Section


class ModelConfig(Section):
    """Tacotron 2 (Shen et al. 2018, arXiv:1712.05884); the defaults are the paper's sizes."""

    symbol_embedding: Annotated[int, Field(ge=4, description="Width of the symbol embedding and of the encoder's convolutions.")] = 512
    encoder_convolutions: Annotated[int, Field(ge=1, le=8, description="Convolutions of the encoder.")] = 3
    encoder_kernel: Annotated[int, Field(ge=1, le=31, description="Symbols; odd.")] = 5
    encoder_lstm: Annotated[int, Field(ge=2, description="Width of the encoder's output: both directions of its LSTM together; even.")] = 512
    encoder_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout after each encoder convolution."), Search(0.0, 0.6)] = 0.5
    attention: Annotated[int, Field(ge=4, description="Width in which attention compares query, memory and location.")] = 128
    attention_mechanism: Annotated[
        Literal["location", "dynamic_convolution", "forward"],
        Field(description="location-sensitive; dynamic convolution, for long texts; forward with a transition agent, for a strict order."),
    ] = "location"
    location_filters: Annotated[int, Field(ge=1, description="location, forward: filters of the location convolution.")] = 32
    location_kernel: Annotated[int, Field(ge=1, le=101, description="location, forward: symbols; odd.")] = 31
    static_filters: Annotated[int, Field(ge=1, description="dynamic_convolution: learned filters.")] = 8
    dynamic_filters: Annotated[int, Field(ge=1, description="dynamic_convolution: filters made anew at each step.")] = 8
    filter_length: Annotated[int, Field(ge=1, le=101, description="dynamic_convolution: length of either; symbols; odd.")] = 21
    prior_length: Annotated[
        int, Field(ge=2, le=51, description="dynamic_convolution: symbols; the furthest move in a step is one less, the mean a tenth of that.")
    ] = 11
    attention_lstm: Annotated[int, Field(ge=4, description="Width of the attention LSTM.")] = 1024
    attention_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout on the attention LSTM's output."), Search(0.0, 0.4)] = 0.1
    prenet: Annotated[int, Field(ge=4, description="Width of both prenet layers.")] = 256
    prenet_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout after each prenet layer."), Search(0.1, 0.7)] = 0.5
    prenet_dropout_at_inference: Annotated[bool, Field(description="Keep the prenet's dropout on in synthesis, as the paper does.")] = True
    decoder_lstm: Annotated[int, Field(ge=4, description="Width of the decoder LSTM.")] = 1024
    decoder_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout on the decoder LSTM's output."), Search(0.0, 0.4)] = 0.1
    reduction_factor: Annotated[int, Field(ge=1, le=10, description="Frames that one decoder step writes."), Choices((1, 2, 3, 5))] = 1
    initial_reduction_factor: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="Frames that a decoder step writes at first; one less after each training.reduction_interval. 0: no such schedule.",
        ),
    ] = 0
    coarse_reduction_factor: Annotated[
        int,
        Field(ge=0, le=20, description="Frames that one step of a second decoder writes, which only training has; 0: no second decoder."),
        Choices((0, 6, 8)),
    ] = 0
    frame_drop: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the recorded frames, read back in training, that the corpus's mean frame stands in for."),
        Search(0.0, 0.3),
    ] = 0.0
    recogniser: Annotated[
        int, Field(ge=0, description="Width of the recogniser that listens to the decoder in training; 0: none."), Choices((0, 256, 1024))
    ] = 0
    recogniser_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout inside the recogniser."), Search(0.0, 0.6)] = 0.5
    speaker_embedding: Annotated[
        int, Field(ge=0, description="Width of the vector that stands for each speaker of the features; 0: one voice, whoever speaks.")
    ] = 0
    style_tokens: Annotated[
        int, Field(ge=0, le=100, description="Global style tokens: learnt vectors that a reference's style is mixed of; the paper has 10. 0: none.")
    ] = 0
    style_heads: Annotated[int, Field(ge=1, description="Heads of the attention over style tokens; each mixes tokens of its own.")] = 8
    style_width: Annotated[int, Field(ge=4, description="Width of the style vector, all heads together; a multiple of style_heads.")] = 256
    postnet_convolutions: Annotated[int, Field(ge=2, le=8, description="Convolutions of the postnet.")] = 5
    postnet_channels: Annotated[int, Field(ge=4, description="Width of the postnet.")] = 512
    postnet_kernel: Annotated[int, Field(ge=1, le=31, description="Frames; odd.")] = 5
    postnet_dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout after each postnet convolution."), Search(0.0, 0.6)] = 0.5

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        for name in ("encoder_kernel", "location_kernel", "filter_length", "postnet_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")
        if self.encoder_lstm % 2:
            raise ValueError(f"encoder_lstm must be even (two directions), got {self.encoder_lstm}")
        if self.style_width % self.style_heads:
            raise ValueError(f"style_width must be a multiple of style_heads ({self.style_heads}), got {self.style_width}")
        if 0 < self.initial_reduction_factor < self.reduction_factor:
            raise ValueError(
                f"initial_reduction_factor must be at least reduction_factor ({self.reduction_factor}), to which it falls, or 0 for no schedule; "
                f"got {self.initial_reduction_factor}"
            )
        if 0 < self.coarse_reduction_factor <= self.largest_reduction_factor:
            raise ValueError(
                f"coarse_reduction_factor must exceed that of every step ({self.largest_reduction_factor}), or be 0 for no second decoder; "
                f"got {self.coarse_reduction_factor}"
            )
        return self

    @property
    def largest_reduction_factor(self) -> int:
        """That of the first step."""
        return self.initial_reduction_factor or self.reduction_factor
