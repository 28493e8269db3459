"""Adversarials rounded to 8 bits: they stay in the ball, and one that rounding undoes is lost."""

import numpy as np
import pandas as pd
import pytest
import torch

from gencls.core import GenclsError
from gencls.eval import Study, ThreatModel, evaluate, summarize
from gencls.eval.judgement.eight_bit import is_eight_bit, to_eight_bit
from tests.strangers.test_judge import Corner, Given, breaking, row_of, samples, undrawn

__all__ = ["undrawn"]


GRID = torch.arange(256).double() / 255


def on_grid(images):
    return bool(torch.isin((images.double() * 255).round() / 255, GRID).all()) and is_eight_bit(images)


def clean_images(count=20, seed=0):
    source = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 256, (count, 3, 8, 8), generator=source) / 255).float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.003, 8 / 255, 0.3, 1.0])
def test_rounded_images_keep_to_the_ball(norm, epsilon):
    threat, clean = ThreatModel(norm, epsilon), clean_images()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    size = noise.abs().flatten(1).amax(1) if norm == "linf" else noise.flatten(1).norm(dim=1)
    adversarial = (clean + 0.9999 * epsilon * noise / size.view(-1, 1, 1, 1)).clamp(0, 1)
    if norm == "linf":
        adversarial = (clean + epsilon * noise.sign()).clamp(0, 1)
    rounded = to_eight_bit(adversarial, clean, threat)
    assert on_grid(rounded)
    assert threat.allows(threat.distance(clean, rounded)).all()
    assert (rounded - adversarial).abs().amax() <= 1 / 255 + 1e-6
    # As near as the ball allows: beyond half a level only where the nearer neighbour lies outside.
    nearest = (adversarial.double() * 255).round() / 255
    moved = (rounded - nearest).abs() > 1e-6
    if norm == "linf":
        assert ((nearest - clean).abs()[moved] > epsilon).all()
    else:
        loose = threat.allows(threat.distance(clean, nearest))
        assert not moved[loose].any()
        back = torch.where(moved, nearest, rounded.double())
        assert not threat.allows(threat.distance(clean, back))[moved.flatten(1).any(1)].any()


def test_eight_bits_without_a_ball_and_without_a_change():
    clean = clean_images()
    adversarial = (clean + 0.0019).clamp(0, 1)
    minimal = ThreatModel("l2")
    assert torch.equal(to_eight_bit(adversarial, clean, minimal), (adversarial.double() * 255).round().div(255).float())
    odd = clean * 0.999  # not of 8 bits
    assert torch.equal(to_eight_bit(odd, odd, minimal), odd)
    assert not is_eight_bit(odd)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    saved = levels / 255
    assert torch.equal(to_eight_bit(saved, 1 - saved, minimal), saved)


def test_an_adversarial_that_rounding_undoes_is_counted_as_lost(tmp_path, undrawn):
    """The decision changes a third of a level above the clean pixel."""

    class Third(Corner):
        def forward(self, images):
            first = images[:, 0, 0, 0] - 96 / 255
            return torch.stack([0.3 / 255 - first, first - 0.3 / 255], dim=1)

    images, labels = samples()
    images = (images * 255).round() / 255
    images[:, 0, 0, 0] = 96 / 255

    def step(images):
        images[:5, 0, 0, 0] += 0.4 / 255
        images[5:, 0, 0, 0] += 0.6 / 255
        return images

    attacks = {"step": Given(step), "minimal": Given(step, ThreatModel("l2"))}
    settings = {"defenses": {"third": Third().eval()}, "attacks": attacks, "images": images, "labels": labels}
    both = [
        evaluate(Third().eval(), attacks, [(images, labels)], eight_bit=eight_bit, name="third") for eight_bit in (False, True)
    ]
    found = [result.summary().set_index(["attack", "norm"]) for result in both]
    for row in ("step", "linf"), ("minimal", "l2"), ("worst case", "linf"), ("worst case", "l2"):
        plain, rounded = found[0].loc[row], found[1].loc[row]
        assert (plain["majority_accuracy"], rounded["majority_accuracy"]) == (0.0, 0.5)
        assert (plain["eight_bit"], rounded["eight_bit"]) == (False, True)
        assert np.isnan(plain["lost_to_eight_bit"])
        assert rounded["lost_to_eight_bit"] == 5
    assert on_grid(both[1].adversarials["step", "none"])
    assert "the attack's own claim, made before rounding to 8 bits," in found[1].loc[("step", "linf"), "warnings"]
    # Records of both stay apart in one table.
    together = summarize(pd.concat([result.records for result in both]))
    assert len(together) == 8
    assert together.groupby("eight_bit")["majority_accuracy"].mean().to_dict() == {False: 0.0, True: 0.5}

    from gencls.eval import Protocol

    study = Study(tmp_path / "study", protocol=Protocol(eight_bit=True), **settings)
    assert study.run()["lost_to_eight_bit"].eq(5).all()
    page = study.report().read_text()
    assert "L∞, ε = 0.25, 8-bit" in page
    assert "5 lost to 8 bits" in page


def test_clean_images_that_are_not_of_8_bits_are_named():
    row = row_of(breaking, eight_bit=True)
    assert "clean images are not of 8 bits" in row["warnings"]
    tight = row_of(lambda images: images + 1e-5, ThreatModel("linf", 2e-5), eight_bit=True)
    assert (tight["n"], tight["excluded"]) == (0, 10)  # no image of 8 bits lies in this ball
    assert "left the ball by up to" in tight["warnings"]


def test_eight_bit_is_yes_or_no():
    from gencls.eval import Protocol

    with pytest.raises(GenclsError, match="expected eight_bit to be True or False, got 'no'"):
        Protocol(eight_bit="no")
