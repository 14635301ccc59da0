"""The table of rules: code, level, condition, sentence, and the knobs and words that advise. A condition's docstring says when it holds."""

from tts.diagnostics.findings import course, learning, material, reading
from tts.diagnostics.findings.rule import Rule, higher, lower

RATE, CLIP = "optimiser.learning_rate", "optimiser.clip_norm"
GUIDANCE, FRAMES = "guided_attention.weight", "model.reduction_factor"
TRANSCRIPTS = "listen to some clips beside their lines in metadata.csv: transcripts that belong to other recordings look like this"

RULES: tuple[Rule, ...] = (
    # How the run went
    Rule("finished", "good", course.finished, "Training finished all {steps} steps."),
    Rule(
        "diverged", "bad", course.diverged, "Training is {state} at step {step} of {steps}.",
        (lower(RATE), lower(CLIP)), "what it went back to and tried is told under Restarts",
    ),
    Rule("unfinished", "warning", course.unfinished, "Training is {state} at step {step} of {steps}."),
    Rule("no-skipped-updates", "good", course.nothing_skipped, "No update was skipped: loss and gradients stayed finite."),
    Rule(
        "updates-skipped", "bad", course.skipped, "{skipped_updates} updates were skipped because something was not finite{first}.",
        (lower(RATE), lower(CLIP)), "correct the utterances that are named under Skipped updates",
    ),
    Rule(
        "utterance-not-finite", "bad", course.same_utterance,
        "Of {told_apart} skipped updates that tell utterances apart, {skipped_updates} were due to the same: {names}.",
        remedy="listen to {names} and prepare the corpus again without what is damaged",
    ),
    Rule(
        "restarted", "warning", course.restarted,
        "Training went back {times}, the last time at step {noticed_step} to step {back_to_step} ({trigger}): {why}. It changed {changes}.",
        remedy="start the next run with what the restart came to",
    ),
    Rule(
        "frame-budget-halved", "warning", course.budget_halved,
        "The device ran out of memory {times}, so that batches shrank from {frame_budget} to {fitting} frames.",
    ),
    Rule(
        "data-slow", "warning", course.data_slow,
        "Steps wait for their batches: loading takes {data_share} of a step, {data_seconds} of {step_seconds} s.",
        (higher("data.frame_budget"),), "keep the features on a local disk; fewer processes beside the training help, too",
    ),
    # Losses
    Rule("mel-loss-unknown", "warning", learning.unknown, "No validation has a finite mel loss yet: nothing can be said about how the voice learns."),
    Rule(
        "mel-loss-not-finite", "bad", learning.newest_not_finite,
        "The newest held-out mel loss is {last}; the lowest was {lowest} at step {best_step}.",
        (lower(RATE), lower(CLIP)),
    ),
    Rule(
        "mel-loss-did-not-fall", "bad", learning.did_not_fall,
        "Held-out mel loss did not fall: {first} at the first validation, {last} at the last.", (lower(RATE), lower(CLIP)),
    ),
    Rule(
        "overfitting", "warning", learning.overfitting,
        "Held-out mel loss rose from its lowest, {lowest} at step {best_step}, to {last}; the checkpoint of step {best_step} is used.",
        (higher("optimiser.weight_decay"), higher("model.prenet_dropout"), lower("training.steps")), "more recordings help most",
    ),
    Rule("one-validation", "warning", learning.one_validation, "There is one validation only (mel loss {last}): no trend can be read."),
    Rule("mel-loss-fell", "good", learning.fell, "Held-out mel loss fell from {first} to {last}; its lowest is {lowest}, at step {best_step}."),
    Rule(
        "plateau", "warning", learning.plateau,
        "Held-out mel loss has not fallen for {validations} validations: {lowest_since} since step {step}, {lowest_before} before.",
        (lower("optimiser.decay_start"), lower("training.steps")),
    ),
    Rule(
        "learning-rate-too-high", "bad", learning.steps_too_large,
        "Steps are too large: gradients were clipped to {clip_norm} in {clipped_share} of the late steps, "
        "and {spikes} of {lines} logged losses are spikes.",
        (lower(RATE), lower(CLIP), higher("optimiser.warmup_steps")),
    ),
    Rule(
        "learning-rate-too-low", "warning", learning.steps_too_small,
        "Weights hardly move: a step changes those of the median module by {update_ratio} of their size.",
        (higher(RATE), lower("optimiser.warmup_steps"), higher("optimiser.minimum_learning_rate")),
    ),
    # Attention, the text, and the gate
    Rule(
        "attention-invalid", "bad", reading.no_attention,
        "{invalid} of {alignments} alignments are no attention at all: a row is not a distribution over the text.", (lower(RATE), lower(CLIP)),
    ),
    Rule(
        "attention-aligned", "good", reading.aligned,
        "Attention is aligned: {diagonality} of the attention lies near the diagonal, teacher-forced, at step {step} (wanted: {wanted}).",
    ),
    Rule(
        "attention-collapsed", "bad", reading.collapsed,
        "Attention collapsed: {diagonality} of it lies near the diagonal at step {step}; it was {best} at step {best_step}.",
        (lower(RATE), higher("guided_attention.hold_steps"), higher("guided_attention.final_share")),
    ),
    Rule(
        "attention-forming", "warning", reading.forming,
        "Attention is not aligned yet: {diagonality} of the attention lies near the diagonal at step {step} (wanted: {wanted}), early in training.",
    ),
    Rule(
        "attention-unaligned", "bad", reading.unaligned,
        "Attention is not aligned: {diagonality} of the attention lies near the diagonal, teacher-forced, at step {step} (wanted: {wanted}).",
        (higher(GUIDANCE), higher(FRAMES), higher("guided_attention.hold_steps"), higher("model.coarse_reduction_factor")), TRANSCRIPTS,
    ),
    Rule(
        "attention-stuck", "bad", reading.stuck,
        "Attention is stuck: it is sharp (focus {focus}) but reaches {coverage} of the symbols only, at step {step}.",
        (higher(GUIDANCE), higher(FRAMES)), "recordings that begin or end with long silence do this: prepare them with silence cut off",
    ),
    Rule(
        "attention-repeats", "warning", reading.repeating,
        "Attention jumps back {repetitions} times in a recording on average, teacher-forced, at step {step}: the voice will repeat words.",
        (higher(GUIDANCE), higher("guided_attention.final_share"), higher("model.coarse_reduction_factor")),
    ),
    Rule(
        "attention-skips", "warning", reading.skipping,
        "Attention jumps forward {skips} times in a recording on average, teacher-forced, at step {step}: the voice will skip words.",
        (higher(GUIDANCE), lower(FRAMES), higher("model.coarse_reduction_factor")), "texts that say more than their recordings do this, too",
    ),
    Rule(
        "text-ignored", "bad", reading.text_ignored,
        "Text and sound do not belong together: with each other's texts held-out recordings are foretold {text_gain} times as badly as with their "
        "own, although attention looks aligned ({diagonality}) and the mel loss fell from {first_mel_loss} to {mel_loss}.",
        remedy="the transcripts are probably swapped: compare the order of metadata.csv with the recordings, and " + TRANSCRIPTS,
    ),
    Rule(
        "text-read", "good", reading.text_read,
        "The voice reads its text: held-out recordings are foretold {text_gain} times as badly with texts of others, teacher-forced.",
    ),
    Rule(
        "gate-shut-yet", "warning", reading.gate_shut_yet,
        "The stop gate opens in none of {recordings} recordings yet, teacher-forced, early in training.",
    ),
    Rule(
        "gate-shut", "bad", reading.gate_shut, "The stop gate never opens within {recordings} of {recordings} recordings, teacher-forced.",
        (higher("losses.gate_positive_weight"), higher("losses.gate_weight"), higher("training.steps")),
    ),
    Rule(
        "gate-shut-in-some", "warning", reading.gate_shut_in_some,
        "The stop gate never opens within {shut} of {recordings} recordings, teacher-forced.",
        (higher("losses.gate_positive_weight"), higher("losses.gate_weight"), higher("training.steps")),
    ),
    Rule(
        "gate-early", "bad", reading.gate_early,
        "The stop gate opens too early: {frames} frames before the end on average, {share} of a recording, where it opens at all ({recordings}).",
        (lower("losses.gate_positive_weight"), higher("synthesis.gate_threshold")),
    ),
    Rule(
        "gate-opens", "good", reading.gate_opens,
        "The stop gate opens in all {recordings} recordings, on average {frames} frames off.",
    ),
    # The corpus, and the parts of the network
    Rule(
        "symbols-untrained", "warning", material.untrained_symbols,
        "Of {of} symbols {symbols} occur in no text that is trained on, so that the voice cannot say: {names}.",
        remedy="add recordings whose texts have them",
    ),
    Rule(
        "clips-rejected", "warning", material.many_rejected,
        "{rejected} of {clips} clips were left out ({share}), {most_frequent} of them for the reason {reason}.",
        remedy="read in quality.json, in the features, why for each; section quality of the configuration sets what is allowed",
    ),
    Rule("clips-silent", "warning", material.silent, "{held} next to no sound: {names}.", remedy="record them again, or remove them"),
    Rule(
        "module-not-finite", "bad", material.module_not_finite,
        "Gradients of {names} were not finite in {lines} of {of} logged steps.", (lower(RATE), lower(CLIP)),
    ),
    Rule(
        "module-frozen", "bad", material.frozen, "{modules} of {of} parts of the network do not learn: {names}.",
        remedy="a weight of 0 in section losses freezes what only its term trains; else the weights are stuck, and a run from the start helps",
    ),
    Rule(
        "module-vanishing", "warning", material.vanishing,
        "Next to no gradient reaches {names}: {gradient_norm} where other parts have {typical}.", (lower(RATE),),
    ),
    Rule(
        "module-exploding", "bad", material.exploding,
        "The gradient of {names} explodes: up to {gradient_norm}, where the whole is clipped to {clip_norm}.",
        (lower(RATE), higher("optimiser.warmup_steps"), lower(CLIP)),
    ),
    Rule(
        "prenet-dead", "warning", material.prenet_dead,
        "{share} of the prenet's units are never active: what was said hardly reaches the decoder.",
        (lower(RATE), lower("optimiser.weight_decay")),
    ),
    Rule(
        "units-saturated", "warning", material.saturated,
        "{share} of the units of {names} are at the end of their range, where they learn slowly.", (lower(RATE), higher("optimiser.weight_decay")),
    ),
)  # fmt: skip
