"""``gencls doctor`` tells whether a defense's robustness is measurable, or masked."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from gencls._commands.asked import build_defense, draw_settings, load_images, weights_of, wrong_classes

if TYPE_CHECKING:
    from torch import nn

    from gencls.core import Key
    from gencls.eval import Diagnosis, Study
    from gencls.zoo import ImageData

__all__ = ["diagnose_study", "run_doctor"]

_IMAGES = 50
"""The number of images that are examined by default, if the data set has so many."""

_SOURCE = "cnn-mnist"
"""The model of the zoo that adversarials are transferred from, if its images have the same shape."""


def run_doctor(options: argparse.Namespace) -> int:
    """Print the diagnosis of one defense; return 1 if a check failed, else 0."""
    from gencls.core import find_device, key_of
    from gencls.eval.doctor.diagnosis import write_diagnoses
    from gencls.zoo.data import count_images

    if options.limit is None:
        options.limit = min(_IMAGES, count_images(options.data, options.split, root=options.data_root))
    data = load_images(options, options.seed)
    device = find_device(options.device)
    weights = weights_of([options.defense], options.weights)
    defense = build_defense(options.defense, data, weights.get(options.defense)).to(device)
    wrong_classes({options.defense: defense}, data, options.data)
    source = _source(options.transfer_from, options.defense, data)
    settings: dict[str, Any] = {
        "epsilon": options.epsilon,
        "norm": options.norm,
        "seed": options.seed,
        "budget": options.budget,
        **draw_settings(options, {options.defense: defense}),
    }
    patient = _Patient(options.defense, defense, data, source, settings)
    if options.dry_run:
        print(f"predicted: {patient.predicted()} for {options.defense}")
        return 0
    subject = {}
    if options.out is not None:  # before the first question to the defense, which may cache results
        subject = patient.subject(key_of(defense, options.defense))
    diagnosis = patient.diagnose()
    print(diagnosis.text(options.defense))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_diagnoses(options.out, {options.defense: {**diagnosis.to_json(), **subject}})
    return 0 if diagnosis.passed else 1


@dataclass(frozen=True)
class _Patient:
    """A defense, and all that its diagnosis depends on: images, the source of transferred adversarials, settings."""

    name: str
    defense: "nn.Module"
    data: "ImageData"
    source: "nn.Module | None"
    settings: Mapping[str, Any]

    def diagnose(self) -> "Diagnosis":
        """Run the doctor on the defense."""
        from gencls.eval.doctor import diagnose

        data = self.data
        return diagnose(self.defense, data.images, data.labels, transfer_from=self._source_beside(), **self.settings)

    def predicted(self) -> str:
        """Say in words what the diagnosis would cost."""
        from gencls.core.words import counted
        from gencls.eval.doctor import predict_diagnosis
        from gencls.eval.study.cost import duration

        data, source = self.data, self._source_beside()
        effort, seconds = predict_diagnosis(self.defense, data.images, data.labels, transfer_from=source, **self.settings)
        images = min(effort.images, len(data))
        return f"{duration(seconds)} at most for a diagnosis ({effort.name}) on {images} of {counted(len(data), 'image')}"

    def _source_beside(self) -> "nn.Module | None":
        """The model that adversarials are transferred from, on the defense's device."""
        from gencls.core.devices import device_of

        device = device_of(self.defense)
        return self.source if self.source is None or device is None else self.source.to(device)

    def subject(self, key: "Key") -> dict[str, Any]:
        """The identity of a diagnosis: ``of`` names its subject, ``key`` is a digest of it and of the code that examines."""
        from gencls.core import key_of
        from gencls.core.images import sample_hashes
        from gencls.eval.doctor import diagnose

        samples = sha256("".join(sample_hashes(self.data.images, self.data.labels)).encode()).hexdigest()[:32]
        origin = None if self.source is None else key_of(self.source, f"source of {self.name}").content
        of = {"defense": key.content, "samples": samples, "source": origin, **self.settings}
        return {"key": key_of((diagnose, key.whole, self.source, *of.items()), self.name).whole, "of": of}


def diagnose_study(
    study: "Study", data: "ImageData", norm: str, epsilon: float, *, eot_samples: int, seed: int, dry_run: bool = False
) -> tuple[str, ...]:
    """Diagnose the defenses of a study and leave ``doctor.json`` in its folder, where the report finds it.

    The file keeps its diagnoses, so that the same command resumes. If one belongs to another version of the defense, to other
    images or settings, or to other code, the command says so and diagnoses the defense again. Diagnoses of other defenses stay.

    A dry run only prints what the missing diagnoses would cost.

    Returns:
        Names of the defenses whose robustness numbers would mean nothing.
    """
    from gencls.core.files import held
    from gencls.eval.doctor.diagnosis import known_diagnoses, read_diagnoses, write_diagnoses
    from gencls.eval.study.folder import DIAGNOSIS

    path = study.folder / DIAGNOSIS
    known, found = known_diagnoses(path), {}
    settings = {"epsilon": epsilon, "norm": norm, "eot_samples": eot_samples, "seed": seed}
    for name, defense in study.defenses.items():
        patient = _Patient(name, defense, data, _source(None, name, data), settings)
        subject, before = patient.subject(study.defense_keys[name]), known.get(name)
        if before and before.get("key") == subject["key"]:
            found[name] = before
            continue
        if dry_run:
            print(f"{name}: {patient.predicted()}")
            continue
        if before:
            print(f"{name}: the diagnosis in {path} {_difference(before, subject)}; diagnosing again")
        diagnosis = patient.diagnose()
        print(diagnosis.text(name) + "\n")
        found[name] = {**diagnosis.to_json(), **subject}
    if dry_run:
        return ()
    with held(path.with_suffix(".lock")):  # another call on the same folder may have diagnosed others
        known = known_diagnoses(path)
        if {**known, **found} != known:
            write_diagnoses(path, {**known, **found})
    diagnoses = read_diagnoses(path, strict=True)
    return tuple(diagnosis.defense for diagnosis in diagnoses if diagnosis.failed and diagnosis.defense in found)


def _difference(known: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    """Say in which points a known diagnosis differs from the one that the user asked for."""
    if "of" not in known:
        return "does not say what it was made of"
    names = {**known["of"], **subject["of"]}
    other = [name for name in names if known["of"].get(name) != subject["of"].get(name)]
    return f"is of another {', '.join(other)}" if other else "was made by other code"


def _source(wanted: str | None, defense: str, data: "ImageData") -> "nn.Module | None":
    from gencls import zoo

    if wanted == "none":
        return None
    if wanted is not None:
        return build_defense(wanted, data)
    fits = data.images.shape[1:] == (1, 28, 28) and data.num_classes == 10
    return zoo.load(_SOURCE) if fits and defense != _SOURCE else None
