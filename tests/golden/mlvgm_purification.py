"""The family mlvgm_purification: the classifiers of the purification paper, by our loader."""

from torch import Tensor

from gencls.zoo.networks.classifiers.published import headed_classifier_from_state
from tests.golden.vectors import Family, Vectors


def outputs(vectors: Vectors) -> dict[str, Tensor]:
    classifier = headed_classifier_from_state(vectors.state)
    assert classifier.num_classes == vectors.config["classes"][vectors.network]
    images = vectors.arrays["image"] / 2 + 0.5  # the arrays are normalised, which our classifier does itself
    return {"logits": classifier(images).detach()}


MLVGM_PURIFICATION = Family(
    inputs=frozenset({"image"}),
    outputs=outputs,
    left_out={},
    # Convolutions of other backends differ by 1e-6 of the largest value.
    tolerance=lambda name, expected: 1e-4 * max(1.0, float(expected.abs().max())),
    load=headed_classifier_from_state,
    unused=lambda state: (),
)
