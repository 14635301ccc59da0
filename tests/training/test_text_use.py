"""Whether the text matters is asked by exchanging it: nothing else of the batch changes."""

from dataclasses import replace

import torch

from tts.config.load import override
from tts.data.batch import Batch
from tts.losses.mel import mel_loss
from tts.model.output import Tacotron2Output
from tts.training.text_use import mel_losses, other_text_losses, with_other_texts


def test_losses_are_those_of_each_utterance_with_the_next_ones_text(new_run, tiny):
    learner, batch = new_run(override(tiny, {"model.prenet_dropout_at_inference": False}))
    model = learner.model.eval()

    def forward(given: Batch) -> Tacotron2Output:
        with torch.no_grad():
            return model(given.symbols_BN, given.symbol_lengths_B, given.mel_BTM, given.mel_lengths_B)

    def one(row: int, text: int) -> float:
        symbols = int(batch.symbol_lengths_B[text])
        alone = replace(
            batch,
            ids=batch.ids[row : row + 1],
            symbols_BN=batch.symbols_BN[text : text + 1, :symbols],
            symbol_lengths_B=batch.symbol_lengths_B[text : text + 1],
            mel_BTM=batch.mel_BTM[row : row + 1],
            mel_lengths_B=batch.mel_lengths_B[row : row + 1],
        )
        return float(mel_loss(forward(alone).mel_post_BTM, alone.mel_BTM, alone.mel_lengths_B, "mse"))

    rows = range(len(batch.ids))
    own = torch.tensor([one(row, row) for row in rows])
    others = torch.tensor([one(row, (row + 1) % len(batch.ids)) for row in rows])
    torch.testing.assert_close(mel_losses(forward(batch), batch), own, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other_text_losses(batch, forward), others, rtol=1e-4, atol=1e-6)


def test_a_text_that_stays_what_it_was_tells_nothing(new_run, tiny):
    learner, batch = new_run(tiny)
    same = replace(
        batch, symbols_BN=batch.symbols_BN[:1].expand_as(batch.symbols_BN), symbol_lengths_B=batch.symbol_lengths_B[:1].expand(len(batch.ids))
    )
    assert torch.equal(with_other_texts(same).symbols_BN, same.symbols_BN)

    def forward(given: Batch) -> Tacotron2Output:
        with torch.no_grad():
            return learner.model.eval()(given.symbols_BN, given.symbol_lengths_B, given.mel_BTM, given.mel_lengths_B)

    assert other_text_losses(same, forward).isnan().all()
