import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tts.losses.mutual_information import left_out, mutual_information_loss
from tts.model.recogniser import Recognition

CLASSES, STEPS = 5, 9
BLANK = CLASSES - 1

utterances = st.lists(st.tuples(st.lists(st.integers(0, BLANK - 1), max_size=5), st.integers(0, STEPS)), min_size=1, max_size=4)


def spelling_cost(log_probabilities_SC, labels):
    """Minus the log of the sum over all paths, by the forward recursion of Graves et al. 2006, in probabilities of float64."""
    path = [BLANK]
    for label in labels:
        path += [label, BLANK]
    probabilities = np.exp(log_probabilities_SC)
    reached = np.zeros(len(path))
    reached[:2] = probabilities[0][path[:2]]
    for step in range(1, len(probabilities)):
        before = reached.copy()
        for place, label in enumerate(path):
            reached[place] = before[place] + (before[place - 1] if place else 0)
            if place > 1 and label not in (BLANK, path[place - 2]):
                reached[place] += before[place - 2]
            reached[place] *= probabilities[step][label]
    with np.errstate(divide="ignore"):
        return -np.log(reached[-2:].sum() if labels else reached[-1])


def heard(texts, logits_BSC):
    labels_BN = torch.zeros(len(texts), 6, dtype=torch.long)
    for row, labels in enumerate(texts):
        labels_BN[row, : len(labels)] = torch.tensor(labels)
    return Recognition(logits_BSC, labels_BN, torch.tensor([len(labels) for labels in texts]))


def random_logits(rows, seed, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(seed).normal(size=(rows, STEPS, CLASSES), scale=2), dtype=dtype)


@given(drawn=utterances, seed=st.integers(0, 99))
def test_equals_the_sum_over_paths_and_torch(drawn, seed):
    """Utterances that cannot be spelled in their steps are left out, and those without a step; both count in the mean."""
    texts, steps = [labels for labels, _ in drawn], [count for _, count in drawn]
    logits_BSC = random_logits(len(drawn), seed)
    expected, excluded = 0.0, 0
    for row, (labels, count) in enumerate(drawn):
        log_probabilities_SC = logits_BSC[row, :count].log_softmax(1)
        needed = len(labels) + sum(one == other for one, other in zip(labels[1:], labels[:-1], strict=True))
        if count < max(needed, 1):
            excluded += count > 0
            continue
        cost = spelling_cost(log_probabilities_SC.numpy(), labels)
        theirs = functional.ctc_loss(log_probabilities_SC, torch.tensor(labels, dtype=torch.long), (count,), (len(labels),), BLANK, "sum")
        assert theirs.item() == pytest.approx(cost, rel=1e-9)
        expected += cost / count
    recognition, steps_B = heard(texts, logits_BSC), torch.tensor(steps)
    assert mutual_information_loss(recognition, steps_B).item() == pytest.approx(expected / len(drawn), rel=1e-9, abs=1e-12)
    assert left_out(recognition, steps_B).item() == excluded


def test_parts_of_a_batch_add_up():
    texts, logits_BSC, steps_B = [[0, 1], [2, 2, 2, 2, 2], [3]], random_logits(3, 0), torch.tensor([4, 8, 2])
    whole = mutual_information_loss(heard(texts, logits_BSC), steps_B)
    parts = [mutual_information_loss(heard(texts[rows], logits_BSC[rows]), steps_B[rows], all_utterances=3) for rows in (slice(2), slice(2, 3))]
    torch.testing.assert_close(sum(parts), whole)
    nobody = Recognition(torch.zeros(0, 0, 1), torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert mutual_information_loss(nobody, torch.zeros(0, dtype=torch.long), all_utterances=3) == 0
    assert left_out(nobody, torch.zeros(0, dtype=torch.long)) == 0


def test_padding_and_utterances_that_are_left_out_are_not_seen():
    logits_BSC = random_logits(3, 0)
    texts, steps_B = [[0, 1], [2, 2, 2, 2, 2], [3]], torch.tensor([4, 8, 0])
    noisy_BSC = logits_BSC.clone()
    noisy_BSC[0, 4:], noisy_BSC[1], noisy_BSC[2] = 1e30, -1e30, torch.inf
    noisy_BSC.requires_grad_()
    loss = mutual_information_loss(heard(texts, noisy_BSC), steps_B)
    assert torch.equal(loss, mutual_information_loss(heard(texts, logits_BSC), steps_B))
    loss.backward()
    assert noisy_BSC.grad[0, :4].any()
    assert not noisy_BSC.grad[0, 4:].nan_to_num(nan=1).any()
    assert not noisy_BSC.grad[1].nan_to_num(nan=1).any()


@given(
    drawn=utterances,
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    size=st.sampled_from([0.0, 1.0, 1e3, torch.inf]),
    seed=st.integers(0, 9),
)
def test_finite_logits_give_a_finite_loss_and_finite_gradients(drawn, dtype, size, seed):
    """Up to the type's largest number."""
    largest = torch.finfo(dtype).max
    logits_BSC = random_logits(len(drawn), seed, torch.float64).mul(min(size, largest)).clamp(-largest, largest).to(dtype).requires_grad_()
    loss = mutual_information_loss(heard([labels for labels, _ in drawn], logits_BSC.float()), torch.tensor([count for _, count in drawn]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss >= 0
    assert logits_BSC.grad.isfinite().all()


def test_a_long_text_of_wild_logits_stays_finite():
    """Two thousand steps at which every label is the least likely: a posterior is the exponential of a difference of sums around 1e9."""
    logits_BSC = torch.full((1, 2000, CLASSES), -3e38)
    logits_BSC[..., BLANK] = 3e38
    logits_BSC.requires_grad_()
    recognition = Recognition(logits_BSC, torch.randint(0, BLANK, (1, 300)), torch.tensor([300]))
    loss = mutual_information_loss(recognition, torch.tensor([2000]))
    loss.backward()
    assert loss.isfinite()
    assert logits_BSC.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_what_the_cpu_gives():
    texts, steps_B = [[0, 1, 1], [2, 2, 2, 2, 2], [3], []], torch.tensor([7, 8, 0, 3])
    gradients = []
    for device in ("cpu", "cuda"):
        logits_BSC = random_logits(4, 0, torch.float32).to(device).requires_grad_()
        on_cpu = heard(texts, logits_BSC)
        recognition = Recognition(logits_BSC, on_cpu.labels_BN.to(device), on_cpu.label_lengths_B.to(device))
        loss = mutual_information_loss(recognition, steps_B.to(device))
        loss.backward()
        assert left_out(recognition, steps_B.to(device)).item() == 1
        gradients.append((loss.detach().cpu(), logits_BSC.grad.cpu()))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
