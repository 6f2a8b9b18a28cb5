from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conviction.fit.muon import orthogonalized
from conviction.fit.optimizer import MuonConfig, build_optimizer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestOrthogonalized:
    @pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (64, 216), (1, 6), (6, 1)])
    def test_singular_values_are_near_one_and_vectors_stay(self, shape: tuple[int, int]) -> None:
        matrix = drawn(*shape)
        left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
        found = left.T @ orthogonalized(matrix, 10).double().numpy() @ right.T
        # The iteration lets values wander between 0.68 and 1.13 on purpose; the steepest slope at zero costs that.
        assert np.all((np.diag(found) > 0.65) & (np.diag(found) < 1.25)), values
        np.testing.assert_allclose(found, np.diag(np.diag(found)), rtol=0, atol=1e-5)

    def test_each_singular_value_goes_its_own_way_by_the_published_polynomial(self) -> None:
        values = np.array([3.0, 1.0, 0.2])
        expected = values / np.linalg.norm(values)
        for _ in range(5):
            expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
        found = orthogonalized(torch.diag(torch.tensor(values, dtype=torch.float32)), 5)
        np.testing.assert_allclose(found.numpy(), np.diag(expected), rtol=0, atol=1e-5)

    def test_the_scale_does_not_matter(self) -> None:
        matrix = drawn(6, 10)
        torch.testing.assert_close(orthogonalized(1e-4 * matrix, 5), orthogonalized(matrix, 5), rtol=1e-4, atol=1e-5)

    def test_bfloat16_is_near_float32(self) -> None:
        matrix = drawn(32, 48)
        found = orthogonalized(matrix, 5, torch.bfloat16)
        assert found.dtype == torch.float32
        assert (found - orthogonalized(matrix, 5)).norm() < 0.03 * found.norm()

    def test_nothing_stays_nothing(self) -> None:
        assert torch.equal(orthogonalized(torch.zeros(3, 4), 5), torch.zeros(3, 4))

    def test_what_is_given_is_left_as_it_is(self) -> None:
        matrix = drawn(3, 4)
        orthogonalized(matrix, 5)
        assert torch.equal(matrix, drawn(3, 4))


class Two(nn.Module):
    """A convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 2)
        self.classifier = nn.Linear(4, 2)
        for parameter in self.parameters():
            parameter.grad = drawn(*parameter.shape, seed=parameter.numel())


def stepped(**settings: object) -> tuple[nn.Module, nn.Module]:
    """Before and after one step."""
    torch.manual_seed(0)
    before = Two()
    torch.manual_seed(0)
    after = Two()
    settings = {"precision": "float32", "learning_rate": 0.5, **settings}
    build_optimizer(MuonConfig.model_validate(settings), after).step()
    return before, after


class TestStep:
    @pytest.mark.parametrize(
        ("adjustment", "factor"), [("none", 1.0), ("original", 1.0), ("match_rms_adamw", 0.2 * 12**0.5)]
    )
    def test_a_kernel_is_a_matrix_of_its_filters(self, adjustment: str, factor: float) -> None:
        before, after = stepped(rate_adjustment=adjustment, nesterov=False)
        moved = (before.convolution.weight - after.convolution.weight).detach() / 0.5
        expected = orthogonalized(before.convolution.weight.grad.reshape(4, 12), 5).reshape(4, 3, 2, 2)
        torch.testing.assert_close(moved, factor * expected, rtol=1e-4, atol=1e-5)

    def test_a_tall_matrix_steps_further(self) -> None:
        network = nn.Sequential(nn.Linear(3, 12, bias=False), nn.Linear(12, 2))
        network[0].weight.grad = drawn(12, 3)
        before = network[0].weight.detach().clone()
        build_optimizer(MuonConfig(learning_rate=0.5, precision="float32"), network).step()
        expected = 0.5 * (12 / 3) ** 0.5 * orthogonalized(drawn(12, 3), 5)
        torch.testing.assert_close(before - network[0].weight.detach(), expected, rtol=1e-4, atol=1e-5)

    def test_classifier_and_biases_go_by_sgd(self) -> None:
        before, after = stepped(rest_learning_rate=0.25, rest_momentum=0.8, rest_weight_decay=0.1)
        for name in ("convolution.bias", "classifier.weight", "classifier.bias"):
            weight = before.get_parameter(name)
            # Nesterov's first step is 1 + momentum times the gradient, to which the decay was added.
            expected = weight - 0.25 * 1.8 * (weight.grad + 0.1 * weight)
            torch.testing.assert_close(after.get_parameter(name), expected)

    def test_decay_of_kernels_is_decoupled(self) -> None:
        (before, plain), (_, decayed) = stepped(), stepped(weight_decay=0.2)
        difference = plain.convolution.weight - decayed.convolution.weight
        torch.testing.assert_close(difference, 0.5 * 0.2 * before.convolution.weight, rtol=1e-4, atol=1e-6)

    def test_weights_may_be_brought_to_a_norm_first(self) -> None:
        (before, plain), (_, normalized) = stepped(), stepped(normalize_weights=True)
        weight = before.convolution.weight
        # Four filters: norm 2.
        expected = plain.convolution.weight - weight + 2 * weight / weight.norm()
        torch.testing.assert_close(normalized.convolution.weight, expected)
        assert torch.equal(plain.classifier.weight, normalized.classifier.weight)

    def test_what_has_no_gradient_stays(self) -> None:
        network = Two()
        network.convolution.weight.grad = None
        before = network.convolution.weight.detach().clone()
        build_optimizer(MuonConfig(weight_decay=0.1), network).step()
        assert torch.equal(network.convolution.weight, before)
