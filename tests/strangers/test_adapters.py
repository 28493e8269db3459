"""Strangers' defenses in strangers' libraries: random or batch-dependent ones are asked rightly, or refused in words."""

import pytest
import torch

from gencls.core import GenclsError
from gencls.defenses import PlainClassifier
from gencls.eval.adapters import as_art, as_autoattack, as_foolbox, as_module, as_robustbench, as_torchattacks
from tests.strangers import defenses as strangers
from tests.strangers.test_randomness import COMPANY, FIXED, SHARED, UNKEYED, each

SHAPE = (1, 8, 8)


def through_art(defense, **settings):
    classifier = as_art(defense, SHAPE, **settings)
    return lambda images: torch.from_numpy(classifier.predict(images.numpy()))


ADAPTERS = {
    "module": as_module,
    "foolbox": as_foolbox,
    "ART": through_art,
    "torchattacks": as_torchattacks,
    "AutoAttack": as_autoattack,
    "RobustBench": as_robustbench,
}


@pytest.fixture
def images():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(5))


def plain(make, **declared):
    return PlainClassifier(make(), 4, **declared).eval()


@pytest.mark.parametrize("library", ADAPTERS)
@pytest.mark.parametrize("settings", [{}, {"samples": 4}, {"calibrated": False}], ids=["as it is", "averaged", "bare"])
def test_a_defense_that_declares_its_batch_is_asked_image_by_image(library, settings, images):
    model = ADAPTERS[library](plain(strangers.MeanOfTheBatch, batch_dependent=True), **settings)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", COMPANY)
def test_its_gradients_are_those_of_images_alone(kind, images):
    model, gradients = as_module(plain(COMPANY[kind], batch_dependent=True)), []
    for size in (1, 4, 6):
        asked = images.clone().requires_grad_()
        scores = torch.cat([model(part) for part in asked.split(size)])
        if not scores.requires_grad:  # ranks have none
            return
        gradients.append(torch.autograd.grad(scores[:, 0].sum(), asked)[0])
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("library", "number"),
    [
        *((library, 6) for library in ADAPTERS),
        ("module", 1),
        *(pytest.param(library, 1, marks=pytest.mark.slow) for library in ADAPTERS if library != "module"),
    ],
)
def test_what_is_not_declared_is_refused(library, number, images):
    """Again and again, whatever a library makes of the first error."""
    cases = [(strangers.MeanOfTheBatch, "depend on one image only"), (strangers.OneOfFive, "stochastic is not set")]
    for make, message in cases:
        model = ADAPTERS[library](plain(make))
        for _ in range(2):
            with pytest.raises(GenclsError, match=message):
                model(images[:number])


@pytest.mark.parametrize("kind", COMPANY)
def test_every_dependence_on_the_batch_is_seen(kind, images):
    with pytest.raises(GenclsError, match="depend on one image only"):
        as_module(plain(COMPANY[kind]))(images)


@each(*SHARED, *UNKEYED)
def test_all_randomness_is_seen(kind, images):
    make = {**SHARED, **UNKEYED}[kind]
    with pytest.raises(GenclsError, match="stochastic is not set"):
        as_module(plain(make))(images)
    assert as_module(plain(make, stochastic=True), samples=3)(images).isfinite().all()


@pytest.mark.parametrize("kind", FIXED)
def test_a_module_that_seeds_itself_scores_an_image_in_one_way(kind, images):
    model = as_module(plain(FIXED[kind]))
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
