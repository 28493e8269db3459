"""``gencls doctor``: is a defense's robustness measurable, or masked?"""

import argparse
from typing import TYPE_CHECKING

from gencls._commands.attack import build_defense, draw_settings

if TYPE_CHECKING:
    from torch import nn

    from gencls.eval import Study
    from gencls.eval.threat import Norm
    from gencls.zoo import ImageData

__all__ = ["diagnose_study", "run_doctor"]

_SOURCE = "cnn-mnist"
"""The zoo's model from which adversarials are transferred if its images fit."""


def run_doctor(options: argparse.Namespace) -> int:
    """Print the diagnosis of one defense; 1 if a check failed, else 0."""
    from gencls import zoo
    from gencls.core import find_device
    from gencls.eval.doctor import diagnose
    from gencls.eval.report.diagnosis import write_diagnoses

    data = zoo.load_data(options.data, options.split, root=options.data_root, limit=options.limit, seed=options.seed)
    device = find_device(options.device)
    defense = build_defense(options.defense, data.images[:4]).to(device)
    source = _source(options.transfer_from, options.defense, data)
    diagnosis = diagnose(
        defense,
        data.images,
        data.labels,
        epsilon=options.epsilon,
        norm=options.norm,
        transfer_from=None if source is None else source.to(device),
        seed=options.seed,
        budget=options.budget,
        **draw_settings(options, {options.defense: defense}),
    )
    print(diagnosis.text(options.defense))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_diagnoses(options.out, {options.defense: diagnosis.to_json()})
    return 0 if diagnosis.passed else 1


def diagnose_study(
    study: "Study", data: "ImageData", norm: "Norm", epsilon: float, *, eot_samples: int, seed: int
) -> tuple[str, ...]:
    """Diagnose the defenses of a study and leave ``doctor.json`` in its folder, from where the report takes it.

    A diagnosis that is there already is kept, so that the same command resumes.

    Args:
        study: that has claimed its folder.
        data: of the study.
        norm: of its attacks.
        epsilon: of its attacks.
        eot_samples: draws per gradient.
        seed: of the random streams.

    Returns:
        The defenses of which a number would be meaningless.
    """
    from gencls.eval.doctor import diagnose
    from gencls.eval.report.diagnosis import read_diagnoses, write_diagnoses
    from gencls.eval.study_folder import DIAGNOSIS

    path = study.folder / DIAGNOSIS
    if not path.exists():
        found = {}
        for name, defense in study.defenses.items():
            source = _source(None, name, data)
            device = next((parameter.device for parameter in defense.parameters()), data.images.device)
            diagnosis = diagnose(
                defense,
                data.images,
                data.labels,
                epsilon=epsilon,
                norm=norm,
                transfer_from=None if source is None else source.to(device),
                eot_samples=eot_samples,
                seed=seed,
            )
            print(diagnosis.text(name) + "\n")
            found[name] = diagnosis.to_json()
        write_diagnoses(path, found)
    return tuple(diagnosis.defense for diagnosis in read_diagnoses(path, strict=True) if diagnosis.failed)


def _source(wanted: str | None, defense: str, data: "ImageData") -> "nn.Module | None":
    from gencls import zoo

    if wanted == "none":
        return None
    if wanted is not None:
        return build_defense(wanted, data.images[:4])
    fits = data.images.shape[1:] == (1, 28, 28) and data.num_classes == 10
    return zoo.load(_SOURCE) if fits and defense != _SOURCE else None
