"""The boundary of an attribute against the released tool's, and its conditional form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.interfacegan import Boundary, find_boundaries, find_boundary, project
from tests.golden.check import Fixture

D = 8


def samples(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (N, D), scores (N,) of a direction with some noise, and that direction (1, D)."""
    generator = torch.Generator().manual_seed(seed)
    codes, n_true = torch.randn(n, D, generator=generator), torch.zeros(1, D)
    n_true[0, 2] = 1.0
    return codes, codes[:, 2] + 0.3 * torch.randn(n, generator=generator), n_true


@pytest.mark.parametrize("case", ["all", "half", "number", "default_split", "invalid"])
def test_released_boundaries(case, monkeypatch) -> None:
    """With the released tool's own shuffles, the same samples train and validate."""
    monkeypatch.setattr(np.random, "default_rng", np.random.RandomState)
    fixture = Fixture("interfacegan_boundary")
    found, stored = boundary(fixture, case), fixture[f"boundary_{case}"]
    assert found.direction.shape == stored.shape
    assert found.direction.dtype == torch.float32
    cosine = torch.cosine_similarity(found.direction, stored).item()
    assert cosine >= least_cosine(fixture, "cosine with boundary")
    counts = fixture.manifest["cases"][case]["counts"]
    for accuracy, key in ((found.validation, "val_correct_of"), (found.rest, "remaining_correct_of")):
        if key in counts:
            correct, of = counts[key]
            # one may lie within the solver's tolerance of the boundary
            assert accuracy == pytest.approx(correct / of, abs=1.5 / of)
        else:
            assert accuracy is None


def test_released_boundary_of_another_split() -> None:
    fixture = Fixture("interfacegan_boundary")
    found = boundary(fixture, "default_split")
    cosine = torch.cosine_similarity(found.direction, fixture["boundary_default_split"])
    assert cosine.item() >= least_cosine(fixture, "cosine with another random split")


def boundary(fixture: Fixture, case: str) -> Boundary:
    entry = fixture.manifest["cases"][case]
    chosen = entry["args"]["chosen_num_or_ratio"]
    extremes = {"ratio": chosen} if chosen <= 1 else {"count": chosen}
    scores = fixture[entry["scores_used"]][:, 0]
    split, invalid = entry["args"]["split_ratio"], entry["args"].get("invalid_value")
    return find_boundary(fixture["latents"], scores, **extremes, split=split, invalid=invalid)


def least_cosine(fixture: Fixture, words: str) -> float:
    (least,) = (bound for name, bound in fixture.manifest["tolerance"].items() if name.startswith(words))
    return least


def test_the_split_follows_the_seed() -> None:
    codes, scores, n_true = samples()
    first, again, other = (find_boundary(codes, scores, ratio=0.2, seed=seed) for seed in (0, 0, 1))
    assert first.direction.equal(again.direction)
    assert not first.direction.equal(other.direction)
    assert first.direction.norm().item() == pytest.approx(1.0)
    assert (first.direction @ n_true.T).item() > 0.9  # towards high scores
    assert find_boundary(codes, -scores, ratio=0.2).direction @ n_true.T < -0.9


def test_held_out_extremes_do_not_train() -> None:
    """Scores that tell nothing about the codes, and room enough to learn 200 of them by heart.

    The others are a coin's toss.
    """
    codes = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    scores = torch.linspace(1, -1, 400)
    found = find_boundary(codes, scores, ratio=0.5, split=0.5)
    assert found.validation == pytest.approx(0.5, abs=0.15)


def test_failed_measurements_are_left_out() -> None:
    codes, scores, _ = samples()
    failed = torch.arange(len(scores)) % 5 == 0
    marked = scores.masked_fill(failed, -0.1)
    expected = find_boundary(codes[~failed], scores[~failed])
    assert find_boundary(codes, marked, invalid=-0.1).direction.equal(expected.direction)
    message = "80 of 400 scores are NaN or infinite: mark failed measurements by `invalid`"
    with pytest.raises(UserError, match=message):
        find_boundary(codes, scores.masked_fill(failed, torch.nan))


def test_boundaries_of_several_attributes() -> None:
    """Each between the codes with a score of it; labels of two values give all of the rarer one."""
    codes, scores, _ = samples()
    known = torch.arange(len(scores)) % 4 != 0
    labels = (scores > 1).float()
    found = find_boundaries(
        codes, {"score": scores.where(known, torch.nan), "label": labels}, ratio=0.2, seed=3
    )
    alone = find_boundary(codes[known], scores[known], ratio=0.2, seed=3)
    assert found["score"].direction.equal(alone.direction)
    labelled = find_boundary(codes, labels, count=int(labels.sum()), seed=3)
    assert found["label"].direction.equal(labelled.direction)
    with pytest.raises(UserError, match="flat: the 80 highest and the 80 lowest of 400 scores meet in 0"):
        find_boundaries(codes, {"flat": torch.zeros_like(scores)}, ratio=0.2, seed=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.001}, "ratio 0.001 of 400 scores and split 0.7 leave no sample"),
        ({"count": 1}, "count 1 of 400 scores and split 0.7"),
        ({"split": 0.0}, "split 0.0 leave no sample"),
        ({"split": 1.5}, "split 1.5 leave no sample"),
    ],
)
def test_nothing_to_train_on_is_refused(options, message) -> None:
    codes, scores, _ = samples()
    with pytest.raises(UserError, match=message):
        find_boundary(codes, scores, **options)


def test_saturated_scores_are_refused() -> None:
    codes, scores, _ = samples()
    message = "the 200 highest and the 200 lowest of 400 scores meet in 1: choose fewer"
    with pytest.raises(UserError, match=message):
        find_boundary(codes, (scores > -1).float(), ratio=0.5)


def test_shapes_are_checked() -> None:
    codes, scores, _ = samples()
    with pytest.raises(ValueError, match=r"got \(400, 8\) and \(400, 1\)"):
        find_boundary(codes, scores[:, None])
    with pytest.raises(ValueError, match=r"got \(8,\) and \(1, 8\)"):
        project(codes[0], codes[:1])


def test_released_projection_and_steps() -> None:
    """`interp` is a step from Z or W to an absolute distance, which no command takes."""
    fixture = Fixture("interfacegan_projection")
    primal, conditions = fixture["primal"], torch.cat([fixture[f"cond{k}"] for k in (1, 2, 3)])
    outputs = {f"projected_{k}": project(primal, conditions[:k]) for k in (1, 2, 3)}
    direction, layers = Direction("n", "interfacegan", primal), fixture["code_layers"]
    steps = [direction.apply(layers, step) for step in torch.linspace(-3, 3, 7).tolist()]
    outputs["interp_layers"] = torch.cat(steps)
    fixture.check(outputs, without=["interp"])


def test_a_projection_is_orthogonal_to_all_conditions() -> None:
    n, *conditions = torch.randn(4, 1, D, generator=torch.Generator().manual_seed(0))
    conditions[1] = conditions[0] + 0.1 * conditions[1]  # far from orthogonal to each other
    conditions.append(5 * conditions[0])  # and dependent
    left = project(n, torch.cat(conditions))
    assert left.norm().item() == pytest.approx(1.0)
    assert (left @ torch.cat(conditions).T).abs().max() < 1e-5
    assert left @ n.T > 0
    with pytest.raises(UserError, match="lies in the span of its conditions"):
        project(conditions[0] - 2 * conditions[2], torch.cat(conditions))
