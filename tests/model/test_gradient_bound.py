import pytest
import torch

from tts.model.gradient_bound import GradientBound


def gradients(share, trunk_size, branch_size, dtype=torch.float64, over_ranks=None):
    """At x, of a trunk and a branch: alone each, and as they meet."""
    torch.manual_seed(0)
    x = torch.randn(5, 7).to(dtype).requires_grad_()
    trunk_weight, branch_weight = torch.randn(5, 7).to(dtype) * trunk_size, torch.randn(5, 7).to(dtype) * branch_size
    bound = GradientBound()
    bound.share, bound.over_ranks = share, over_ranks
    trunk, branch = bound(x)
    assert torch.equal(trunk, x)
    assert torch.equal(branch.to(dtype), x)
    assert branch.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    ((trunk * trunk_weight).sum() + (branch * branch_weight).sum()).backward()
    return trunk_weight, branch_weight, x.grad, bound


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("branch_size", [1e-3, 0.3, 1.0, 1e6])
def test_the_branch_has_its_share_and_no_more(share, branch_size):
    trunk, branch, met, bound = gradients(share, 1.0, branch_size)
    scale = min(1.0, share * float(trunk.norm()) / float(branch.norm()))
    torch.testing.assert_close(met, trunk + scale * branch)
    assert (met - trunk).norm() <= share * trunk.norm() * (1 + 1e-12)
    assert float(bound.scale) == pytest.approx(scale)


def test_without_a_share_nothing_is_bounded():
    for size in (0.0, 1.0):
        trunk, branch, met, bound = gradients(torch.inf, size, 1e6)
        torch.testing.assert_close(met, trunk + branch)
        assert bound.scale == 1


def test_where_the_trunk_has_no_gradient_the_branch_has_none():
    _, _, met, _ = gradients(0.5, 0.0, 1.0)
    assert not met.any()


def test_a_branch_without_gradient_changes_nothing():
    trunk, _, met, bound = gradients(0.5, 1.0, 0.0)
    assert torch.equal(met, trunk)
    assert bound.scale == 1


def test_norms_are_those_of_the_whole_batch():
    """Another rank's squares are added: its branch is small, so all together are within their share."""

    def others(squares):
        return squares + torch.tensor([1e6, 0.0])

    trunk, branch, met, bound = gradients(0.5, 1.0, 1.0, over_ranks=others)
    assert bound.scale == 1
    torch.testing.assert_close(met, trunk + branch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype):
    """In float16 the squares of 300 are infinite."""
    trunk, branch, met, bound = gradients(0.5, 300.0, 300.0, dtype)
    assert met.dtype == dtype
    assert met.isfinite().all()
    assert float(bound.scale) == pytest.approx(0.5 * float(trunk.float().norm() / branch.float().norm()), rel=1e-2)


def test_what_is_not_finite_stays_so():
    """The step has to notice."""
    for sizes in ((torch.inf, 1.0), (1.0, torch.inf)):
        assert not gradients(0.5, *sizes)[2].isfinite().all()


def test_without_a_backward_pass_it_is_nothing():
    x = torch.randn(3)
    with torch.no_grad():
        assert all(torch.equal(part, x) for part in GradientBound()(x))
