"""What an alignment shows, measured per utterance on true lengths.

Shape letters: B batch, S decoder steps, N symbols.

Differs from ESPnet's and Coqui's measures by masking padding and by refusing what is not an attention: a row that is not a distribution
over the true symbols (NaN, negative, all zeros, mass on padding) makes its utterance invalid, which reads NaN and never as a good score.
"""

import torch
from torch import Tensor

from tts.data.batch import length_mask

BAND_HALF_WIDTH = 0.15
"""Half-width of the diagonal band, as a share of the text. Pauses and short texts bend real alignments; uniform attention scores 0.28."""

ATTENDED = 0.1
"""A symbol counts as attended when some step gives it more than this weight (ESPnet's and DLE's habit)."""

JUMP = 3
"""Symbols by which the attended position may move in one step; more is a repetition (back) or a skip (forward)."""

END_SYMBOLS = 3
"""The end is reached when the last step attends one of this many last symbols: the last letter, its full stop and the end of sequence.

The last two are silent, and silence is cut off the recordings: a voice that says the last letter has said it all.
"""

MASS_TOLERANCE = 0.02
"""Deviation of a row's mass from 1 that half precision explains."""


def attention_measures(alignment_BSN: Tensor, symbol_lengths_B: Tensor, step_lengths_B: Tensor) -> dict[str, Tensor]:
    """Measures of each utterance's alignment, float32 (B,); `valid` is bool, and every other entry of an invalid utterance is NaN.

    entropy: row entropy / ln N, mean over steps; one-hot 0, uniform 1; a text of one symbol 0.
    focus: mean over steps of the row's maximum.
    diagonality: share of mass within BAND_HALF_WIDTH of the diagonal n/N = t/S (centres of cells; a cell that the diagonal crosses counts).
    coverage: share of symbols that some step attends with more than ATTENDED.
    monotonicity: share of moves that do not go back; an attention that is stuck scores 1 too, so read it beside coverage.
    repetitions, skips: moves by more than JUMP symbols back or forward; the first step moves from the first symbol.
    end_reached: 1 where the last step attends one of the last END_SYMBOLS symbols, else 0.

    Padding may hold anything, NaN included. Raises ValueError when a length exceeds the tensor.
    """
    _check_lengths(alignment_BSN, symbol_lengths_B, step_lengths_B)
    _, S, N = alignment_BSN.shape
    step_BS, symbol_BN = length_mask(step_lengths_B, S), length_mask(symbol_lengths_B, N)
    cell_BSN = step_BS[:, :, None] & symbol_BN[:, None, :]
    raw_BSN = torch.where(cell_BSN, alignment_BSN.detach().float(), 0.0)
    valid_B = _valid(raw_BSN, step_BS) & (step_lengths_B > 0) & (symbol_lengths_B > 0)
    # Invalid utterances are emptied, so that the arithmetic below stays finite; their NaN is set at the end.
    weights_BSN = torch.where(valid_B[:, None, None], raw_BSN, 0.0)
    weights_BSN = weights_BSN / weights_BSN.sum(2, keepdim=True).clamp(min=1 - MASS_TOLERANCE)
    steps_B, symbols_B = step_lengths_B.clamp(min=1).float(), symbol_lengths_B.clamp(min=1).float()
    measures = {
        "entropy": _entropy(weights_BSN, symbols_B, steps_B),
        "focus": weights_BSN.amax(2).sum(1) / steps_B if S and N else torch.zeros_like(steps_B),
        "diagonality": (weights_BSN * _band(steps_B, symbols_B, S, N)).sum((1, 2)) / steps_B,
        "coverage": (weights_BSN.amax(1) > ATTENDED).sum(1) / symbols_B if S and N else torch.zeros_like(steps_B),
        **_moves(weights_BSN, step_BS, step_lengths_B, symbol_lengths_B),
    }
    invalid = torch.tensor(float("nan"), device=alignment_BSN.device)
    return {name: torch.where(valid_B, value.float(), invalid) for name, value in measures.items()} | {"valid": valid_B}


def _check_lengths(alignment_BSN: Tensor, symbol_lengths_B: Tensor, step_lengths_B: Tensor) -> None:
    for name, lengths_B, size in (("step", step_lengths_B, alignment_BSN.shape[1]), ("symbol", symbol_lengths_B, alignment_BSN.shape[2])):
        if lengths_B.numel() and int(lengths_B.max()) > size:
            raise ValueError(f"{name} length {int(lengths_B.max())} exceeds the alignment's {size}")


def _valid(raw_BSN: Tensor, step_BS: Tensor) -> Tensor:
    """(B,) bool: every true row is a distribution."""
    mass_BS = raw_BSN.sum(2)
    # A comparison with NaN is False, so NaN and infinity end up invalid.
    row_BS = ((mass_BS - 1).abs() <= MASS_TOLERANCE) & (raw_BSN >= 0).all(2)
    return (row_BS | ~step_BS).all(1)


def _entropy(weights_BSN: Tensor, symbols_B: Tensor, steps_B: Tensor) -> Tensor:
    total_B = -torch.special.xlogy(weights_BSN, weights_BSN).sum((1, 2)) / steps_B
    # One symbol leaves nothing to be uncertain about: 0 / ln 1 would be NaN.
    return torch.where(symbols_B > 1, total_B / symbols_B.log().clamp(min=1e-6), 0.0).abs().clamp(max=1)


def _band(steps_B: Tensor, symbols_B: Tensor, S: int, N: int) -> Tensor:
    """(B, S, N) bool: cells near the diagonal."""
    t_BS = (torch.arange(S, device=steps_B.device) + 0.5) / steps_B[:, None]
    n_BN = (torch.arange(N, device=steps_B.device) + 0.5) / symbols_B[:, None]
    # Where cells are wider than the band (few steps or symbols), those that the diagonal crosses still count; 1e-5 is for rounding.
    half_B = (0.5 / steps_B + 0.5 / symbols_B).clamp(min=BAND_HALF_WIDTH) + 1e-5
    return (n_BN[:, None, :] - t_BS[:, :, None]).abs() <= half_B[:, None, None]


def _moves(weights_BSN: Tensor, step_BS: Tensor, step_lengths_B: Tensor, symbol_lengths_B: Tensor) -> dict[str, Tensor]:
    if not weights_BSN.shape[1] or not weights_BSN.shape[2]:
        zero_B = torch.zeros_like(step_lengths_B)
        return {"monotonicity": zero_B, "repetitions": zero_B, "skips": zero_B, "end_reached": zero_B}
    position_BS = weights_BSN.argmax(2)
    move_BS = torch.diff(position_BS, dim=1, prepend=torch.zeros_like(position_BS[:, :1]))
    last_B = position_BS.gather(1, (step_lengths_B - 1).clamp(min=0)[:, None]).squeeze(1)
    # The first step's move starts at the first symbol and cannot go back, so it is no evidence of monotonicity.
    backward_B = ((move_BS < 0) & step_BS).sum(1)
    return {
        "monotonicity": 1 - backward_B / (step_lengths_B - 1).clamp(min=1),
        "repetitions": ((move_BS < -JUMP) & step_BS).sum(1),
        "skips": ((move_BS > JUMP) & step_BS).sum(1),
        "end_reached": last_B >= symbol_lengths_B - END_SYMBOLS,
    }
