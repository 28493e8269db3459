"""Adversarial training of classifiers (Madry et al., arXiv:1706.06083): cross-entropy on the worst images of a ball."""

from dataclasses import replace

from gencls.zoo.training.methods.classifier import ClassifierPreset, table_classifier
from gencls.zoo.training.thesis import DATA_SETS, ThesisData
from gencls.zoo.training.views.adversarial import Adversarial
from gencls.zoo.training.views.perturbations import SMOOTHING_NOISE, Composed

_FROM_SCRATCH = "CNN of thesis Table 2.1, adversarially trained from scratch (thesis: from the plain CNN) with"


def _trained_on(data: ThesisData) -> tuple[ClassifierPreset, ClassifierPreset]:
    """Make Adv-Linf and Adv-L2, which the thesis tunes to E-ABS's clean accuracy."""
    epochs = data.long * data.adversarial
    linf = Adversarial(norm="linf", epsilon=data.linf, steps=7, step_size=round(data.linf / 3, 6), warmup_epochs=3.0 * epochs)
    l2 = Adversarial(norm="l2", epsilon=data.l2, steps=5, step_size=0.6, warmup_epochs=2.0 * epochs)
    first = ClassifierPreset(
        name=f"adv-linf-{data.name}",
        what=f"{_FROM_SCRATCH} Linf PGD",
        perturbation=linf,
        epochs=round(12 * epochs),
        dropout=0.0,
        **table_classifier(data),
    )
    second = replace(
        first, name=f"adv-l2-{data.name}", what=f"{_FROM_SCRATCH} L2 PGD", perturbation=l2, epochs=round(7 * epochs)
    )
    return first, second


_BY_NAME = {preset.name: preset for data in DATA_SETS for preset in _trained_on(data)}

PRESETS: tuple[ClassifierPreset, ...] = (
    replace(
        _BY_NAME["adv-linf-fashion"],
        name="adv-linf-gaussian-fashion",
        what="CNN of thesis Table 2.1, trained from scratch on Linf PGD with the Gaussian noise of thesis section 4.3 added "
        "(the combination that its section 4.6 proposes)",
        perturbation=Composed((_BY_NAME["adv-linf-fashion"].perturbation, SMOOTHING_NOISE)),
    ),
    *_BY_NAME.values(),
)
