"""When a run counts as gone wrong, against rules written out over its whole past; and which checkpoints a restart may use."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import GuidedAttentionConfig, RecoveryConfig
from tts.training.checkpoint import Entry, thinned
from tts.training.recovery.trouble import Doubt, Streak
from tts.training.recovery.updates_watch import SMOOTHED_STEPS, UpdatesWatch
from tts.training.recovery.validations_watch import WORKING_GATE, ValidationsWatch, faded
from tts.training.recovery.watch import Watch

RULES = RecoveryConfig(max_skipped_updates=3, divergence_factor=1.5, divergence_steps=2, collapse_validations=2, aligned_diagonality=0.6)
FADING = GuidedAttentionConfig(hold_steps=3, decay_steps=3)

SOME_LOSSES = st.lists(st.one_of(st.floats(0.1, 100), st.sampled_from([math.nan, math.inf])), max_size=70)


def watched(losses, factors=None, guidance=1.0, rules=RULES):
    """The watch after each step; a loss that is not finite is a skipped update."""
    watch, past = UpdatesWatch(), []
    for step, loss in enumerate(losses, start=1):
        factor = factors[step - 1] if factors else 1
        offence = None if math.isfinite(loss) else f"loss {step}"
        watch = watch.after(step, loss, reduction_factor=factor, guidance=guidance, offence=offence, overflow=False, rules=rules)
        past.append(watch)
    return past


@given(SOME_LOSSES)
def test_divergence_is_what_the_rule_says_of_all_losses_so_far(losses):
    means, steps = [], []
    finite = [(step, loss) for step, loss in enumerate(losses, start=1) if math.isfinite(loss)]
    for end in range(SMOOTHED_STEPS, len(finite) + 1):
        means.append(math.fsum(loss for _, loss in finite[end - SMOOTHED_STEPS : end]) / SMOOTHED_STEPS)
        steps.append(finite[end - 1][0])
    high = [mean > RULES.divergence_factor * min(means[:place], default=math.inf) for place, mean in enumerate(means)]
    expected = next((steps[place] for place in range(1, len(high)) if high[place] and high[place - 1]), None)
    noticed = next((step for step, watch in enumerate(watched(losses), start=1) if watch.diverging.count >= RULES.divergence_steps), None)
    assert noticed == expected


@given(SOME_LOSSES)
def test_skipped_updates_count_where_they_stand_in_a_row(losses):
    for step, watch in enumerate(watched(losses), start=1):
        row = 0
        while row < step and not math.isfinite(losses[step - 1 - row]):
            row += 1
        assert watch.skipped == (Streak(count=row, since=step - row + 1) if row else Streak())
        assert (watch.trouble(step, RULES) is not None) >= (row >= RULES.max_skipped_updates)


def test_the_sentence_names_the_evidence_and_the_offender():
    trouble = watched([1.0, 2.0, math.nan, math.inf, math.nan])[-1].trouble(5, RULES)
    assert trouble.sentence == "3 updates in a row were not finite (recovery.max_skipped_updates), from step 3, the last at step 5: loss 5"
    assert (trouble.trigger, trouble.began_step, trouble.noticed_step, trouble.evidence) == ("non-finite", 3, 5, {"skipped_in_a_row": 3.0})
    losses = [1.0] * 30 + [5.0] * 20
    step, watch = next((step, watch) for step, watch in enumerate(watched(losses), start=1) if watch.trouble(step, RULES))
    # Mean 1 + 4 k / 20 is above 1.5 from the third high loss on, and for two steps at the fourth.
    assert step == 34
    found = watch.trouble(step, RULES)
    assert (found.trigger, found.began_step) == ("divergence", 33 - SMOOTHED_STEPS + 1)
    assert found.sentence == (
        "the training loss, 1.8 as the mean of 20 steps, has been above 1.5 times its lowest (1 at step 20) for 2 steps, from step 33"
    )
    assert found.evidence == {"loss": pytest.approx(1.8), "lowest_loss": 1.0, "lowest_step": 20, "diverging_steps": 2}


def test_losses_of_another_kind_are_not_compared():
    losses = [1.0] * 30 + [5.0] * 30
    assert all(watch.diverging.count == 0 for watch in watched(losses, factors=[2] * 30 + [1] * 30))
    before = watched(losses[:30], guidance=1.0)[-1]
    after = before.after(31, 5.0, reduction_factor=1, guidance=2.0, offence=None, overflow=False, rules=RULES)
    assert after.losses == (5.0,)
    faded_some = before.after(31, 5.0, reduction_factor=1, guidance=0.5, offence=None, overflow=False, rules=RULES)
    assert faded_some.lowest == 1.0


def test_an_overflow_of_the_gradient_scaler_is_no_skipped_update_and_ends_no_row():
    watch = watched([math.nan, math.nan])[-1]
    after = watch.after(3, 1.0, reduction_factor=1, guidance=1.0, offence=None, overflow=True, rules=RULES)
    assert after.skipped == watch.skipped


VALIDATIONS = st.lists(st.tuples(st.one_of(st.floats(0, 1), st.just(math.nan)), st.sampled_from([0.0, 0.3, 0.5, 1.0, math.nan])), max_size=12)


def validated(values, guidance=FADING, rules=RULES):
    watch, past = ValidationsWatch(), []
    for step, (diagonality, on_time) in enumerate(values, start=1):
        watch = watch.after(step, {"attention_diagonality": diagonality, "gate_on_time": on_time}, guidance, rules)
        past.append(watch)
    return past


@given(VALIDATIONS)
def test_collapse_is_what_the_rule_says_of_all_validations_so_far(values):
    attention, gate = [False], [False]
    for step, (diagonality, on_time) in enumerate(values, start=1):
        best = max((value for value, _ in values[: step - 1] if not math.isnan(value)), default=-1)
        attention.append(step >= 6 and best >= 0.6 and (math.isnan(diagonality) or diagonality < 0.6 * best))
        gate.append(any(value >= WORKING_GATE for _, value in values[: step - 1]) and (math.isnan(on_time) or on_time == 0))
    for step, watch in enumerate(validated(values), start=1):
        trouble = watch.trouble(step, RULES)
        if attention[step] and attention[step - 1]:
            assert trouble.trigger == "attention collapse"
            assert attention[trouble.began_step]
            assert not attention[trouble.sound_step]
            assert trouble.sound_step < trouble.began_step
        elif gate[step] and gate[step - 1]:
            assert trouble.trigger == "gate collapse"
        else:
            assert trouble is None


def test_attention_cannot_collapse_before_guidance_has_faded_or_where_the_share_is_0():
    values = [(0.9, 0.0)] * 2 + [(0.1, 0.0)] * 20
    assert next(step for step, watch in enumerate(validated(values), start=1) if watch.trouble(step, RULES)) == 7
    assert validated(values, guidance=FADING.model_copy(update={"weight": 0.0}))[3].trouble(4, RULES) is not None
    assert validated(values, rules=RULES.model_copy(update={"collapse_share": 0.0}))[-1].trouble(22, RULES) is None
    assert (faded(FADING, 5), faded(FADING, 6)) == (False, True)


def test_validations_of_an_older_version_lack_a_metric():
    watch = ValidationsWatch().after(3, {"attention_diagonality": 0.9}, FADING, RULES)
    assert (watch.step, watch.attention.best, watch.gate.best) == (3, 0.9, -math.inf)


@given(SOME_LOSSES, VALIDATIONS)
def test_a_watch_that_was_written_down_is_the_same(losses, values):
    watch = Watch(updates=(watched(losses) or [UpdatesWatch()])[-1], validations=(validated(values) or [ValidationsWatch()])[-1])
    assert Watch.model_validate(watch.model_dump()) == watch
    assert watch.anew().trouble(1000, RULES) is None


SAVES = st.lists(st.integers(1, 40), min_size=1, max_size=25)


def entries_of(steps, regular=True):
    return [Entry(step=step, file=f"step-{step:08d}.pt", sha256="", mel_loss=None, regular=regular) for step in steps]


@given(gaps=SAVES, keep=st.integers(1, 3), probation=st.integers(0, 100))
def test_whatever_is_kept_one_is_proven_once_any_could_be(gaps, keep, probation):
    """However few are kept: at most the first that could be proven is passed over for as long as the one on probation needs."""
    kept, steps = (), []
    for gap in gaps:
        step = (steps[-1] if steps else 0) + gap
        steps.append(step)
        doubt = Doubt(sound_step=step + 1, began_step=step + 1)
        kept = thinned([*kept, *entries_of([step])], keep, [doubt], probation)
        could = [old for old in steps if doubt.spares(old, probation)]
        has = [entry.step for entry in kept if doubt.spares(entry.step, probation)]
        assert bool(has) == bool(could)
        assert len(kept) <= keep + 2
        if could:
            # Where the newest that could be proven is not there, what is there was written at most two probations and a gap ago.
            assert has[-1] == could[-1] or step - has[-1] <= 2 * (probation + max(gaps))


def test_of_best_newest_and_proven_none_is_lost():
    entries = [Entry(step=step, file="", sha256="", mel_loss=loss) for step, loss in {10: 1.0, 20: 3.0, 30: 4.0, 40: 2.0, 50: 2.0, 60: 2.0}.items()]
    doubt = Doubt(sound_step=61, began_step=61)
    assert [entry.step for entry in thinned(entries, 1, [doubt], 35)] == [10, 20, 30, 60]
    assert [entry.step for entry in thinned(entries, 1, [doubt, Doubt(sound_step=15, began_step=50)], 35)] == [10, 20, 30, 60]
    assert [entry.step for entry in thinned(entries, 2)] == [10, 50, 60]


def test_a_checkpoint_is_proven_by_the_steps_after_it_and_by_the_last_sound_validation():
    doubt = Doubt(sound_step=50, began_step=100)
    assert [step for step in (10, 50, 51, 60, 70, 71) if doubt.spares(step, 30)] == [10, 50]
    assert [step for step in (10, 70, 71) if Doubt(sound_step=100, began_step=100).spares(step, 30)] == [10, 70]


def test_what_is_recorded_is_plain():
    watch = watched([1.0, math.nan])[-1]
    assert json.loads(json.dumps(watch.model_dump()))["offence"] == "loss 2"
