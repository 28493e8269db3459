"""Numbers of numpy and torch wherever a number is taken: the same settings, streams and results as with Python's own."""

import numpy as np
import pytest
import torch

from gencls.core import EoT, GenclsError, fingerprint, keyed, seeded, stream_seed
from gencls.defenses import GaussianNoise, PlainClassifier, TransformedClassifier
from gencls.defenses.synthesis.elimination import Elimination
from gencls.eval import APGD, NES, PGD, Protocol, Square, Study, ThreatModel, evaluate, judge
from gencls.eval.adapters import as_module
from gencls.eval.attacks.presets import attack_by_name
from tests.toys import small_cnn

BALL = ThreatModel("linf", 0.1)

INTS = {
    "numpy scalar": np.int64,
    "small numpy scalar": np.uint8,
    "numpy array": np.array,
    "tensor": torch.tensor,
    "int32 tensor": lambda value: torch.tensor(value, dtype=torch.int32),
}
FLOATS = {
    "numpy scalar": np.float64,
    "numpy array": np.array,
    "tensor": lambda value: torch.tensor(value, dtype=torch.float64),
    "tensor with a gradient": lambda value: torch.tensor(value, dtype=torch.float64, requires_grad=True),
}

OF_INTS = {
    "steps": lambda number: PGD(BALL, steps=number),
    "restarts": lambda number: APGD(BALL, restarts=number),
    "queries": lambda number: Square(BALL, queries=number),
    "draws": lambda number: Protocol(judge_draws=number),
    "most draws": lambda number: Protocol(judge_draws=1, most_draws=number),
    "seed": lambda number: Protocol(seed=number),
    "by name": lambda number: attack_by_name("pgd-linf", 0.1, steps=number),
    "rounds": lambda number: Elimination(rounds=((number, 0.5),)),
}
OF_FLOATS = {
    "epsilon": lambda number: ThreatModel("linf", number),
    "sigma": lambda number: NES(BALL, sigma=number),
    "a tuple": lambda number: PGD(BALL, smoothing=(number,)),
    "memory": lambda number: Protocol(memory=number),
    "by name": lambda number: attack_by_name("pgd-linf", number),
}


@pytest.mark.parametrize("kind", INTS)
@pytest.mark.parametrize("setting", OF_INTS)
def test_ints(setting, kind):
    made, expected = OF_INTS[setting](INTS[kind](3)), OF_INTS[setting](3)
    assert repr(made) == repr(expected)
    assert fingerprint(made) == fingerprint(expected)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("setting", OF_FLOATS)
def test_floats(setting, kind):
    made, expected = OF_FLOATS[setting](FLOATS[kind](0.25)), OF_FLOATS[setting](0.25)
    assert repr(made) == repr(expected)
    assert fingerprint(made) == fingerprint(expected)


def test_the_value_is_kept():
    assert ThreatModel("linf", np.float32(0.3)).epsilon == float(np.float32(0.3)) == 0.30000001192092896
    assert ThreatModel("linf", torch.tensor(1)).epsilon == 1.0
    assert repr(ThreatModel(np.str_("l2"), 1.0, np.bool_(True))) == repr(ThreatModel("l2", 1.0, True))


NO_NUMBERS = {
    "a truth value of torch": (torch.tensor(True), "got True (Tensor)"),
    "a truth value of numpy": (np.bool_(True), "got True (bool"),
    "a complex number": (torch.tensor(2j), "got 2j (Tensor)"),
    "a list of one": (torch.tensor([3]), "got Tensor of shape (1,)"),
    "an array of one": (np.array([3]), "got ndarray of shape (1,)"),
    "NaN": (torch.tensor(float("nan")), "got nan (Tensor)"),
    "no number at all": (torch.empty((), device="meta"), "got Tensor"),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize(
    "make",
    [lambda value: PGD(BALL, steps=value), lambda value: ThreatModel("l2", value), lambda value: EoT(small_cnn(), value)],
)
def test_what_is_no_number_is_refused(kind, make):
    value, message = NO_NUMBERS[kind]
    with pytest.raises(GenclsError, match="expected .* to be") as caught:
        make(value)
    assert message in str(caught.value)


def noisy():
    return TransformedClassifier(GaussianNoise(np.float64(0.1)), small_cnn().eval(), np.int64(4)).eval()


def test_a_defense_of_such_numbers_is_the_same():
    plain = TransformedClassifier(GaussianNoise(0.1), small_cnn().eval(), 4).eval()
    assert fingerprint(noisy()) == fingerprint(plain)
    assert repr(PlainClassifier(small_cnn(), torch.tensor(4))) == repr(PlainClassifier(small_cnn(), 4))
    assert repr(GaussianNoise(torch.tensor(0.5))) == repr(GaussianNoise(0.5))


@pytest.mark.parametrize("kind", INTS)
def test_streams(kind):
    number = INTS[kind](3)
    assert stream_seed(number, "judge", number) == stream_seed(3, "judge", 3)
    drawn = []
    for seed in (number, 3):
        with seeded(seed):
            drawn.append(torch.rand(2))
        with keyed([seed, seed]):
            drawn.append(torch.rand(2))
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])


@pytest.mark.parametrize("seed", [1.0, True, "1", None, 2**64, torch.tensor(0.5)])
def test_a_seed_is_a_whole_number_of_64_bits(seed):
    with pytest.raises(GenclsError, match="seeded: expected an int of at most 64 bits as seed, got"), seeded(seed):
        pass


@pytest.mark.parametrize("kind", ["numpy array", "tensor"])
def test_evaluations_studies_and_verdicts(kind, tmp_path):
    number = INTS[kind]
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2])
    attacks = {"pgd": PGD(BALL, steps=1)}

    def outcomes(one, seed, folder):
        found = evaluate(noisy(), attacks, [(images, labels)], eot_samples=one, judge_draws=one, seed=seed)
        study = Study(folder, defenses={"d": noisy()}, attacks=attacks, images=images, labels=labels, seeds=(seed,))
        verdict = judge(noisy(), images, images, BALL, count=one, seed=seed)
        scores = as_module(noisy(), samples=one)
        timeless = found.records.drop(columns=["seconds", "peak_memory"])
        return (
            timeless.to_json(),
            [cell.seed for cell in study.cells()],
            verdict.predictions.tolist(),
            scores.scores.eot.samples,
        )

    assert outcomes(number(2), number(7), tmp_path / "such") == outcomes(2, 7, tmp_path / "plain")
