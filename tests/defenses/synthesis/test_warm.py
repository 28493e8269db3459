"""Inference that goes on from the last look: closed forms, and whose q is whose."""

import pytest
import torch

from gencls.core import EoT, GenclsError, TransformedClassifier, Unrolled, branch, draws, identified, keyed, select
from gencls.core.streams.keyed import repeatable
from gencls.defenses import ABS, EABS, AnalysisBySynthesis, GaussianBlur, GaussianKL, Posterior
from gencls.defenses.synthesis.starts import RandomStarts
from gencls.defenses.synthesis.warm import WHOLE_EVERY, WarmStart
from gencls.eval import PGD, GaussianNoiseAttack, Protocol, ThreatModel, evaluate, run_cell
from gencls.perceptual import SquaredL2
from tests.toys import LinearGaussian, SigmoidDecoders, small_cnn

WEIGHT, LR = 0.7, 0.1


def engine(*, steps=30, optimizer="gradient", classes=3, **settings):
    """On the session's linear toy, float64: gradient descent is an affine iteration. With one class no decision changes."""
    generator, regularizer = LinearGaussian(num_classes=classes, image_shape=(1, 3, 4), latent_size=4), GaussianKL()
    return AnalysisBySynthesis(
        generator,
        start=RandomStarts(generator, regularizer, WEIGHT, count=8, seed=1),
        distance=SquaredL2(),
        regularizer=regularizer,
        weight=WEIGHT,
        steps=steps,
        lr=LR,
        optimizer=optimizer,
        **settings,
    ).eval()


def descent(defense, images, latents, steps):
    """z - lr (2 A^T (A z + b - x) + lambda z), so many times."""
    matrix, offset = defense.generator.matrix, defense.generator.offset
    for _ in range(steps):
        residual = torch.einsum("kpd,nkd->nkp", matrix, latents) + offset - images.flatten(1).unsqueeze(1)
        latents = latents - LR * (2 * torch.einsum("kpd,nkp->nkd", matrix, residual) + WEIGHT * latents)
    return latents


@pytest.fixture
def path():
    """Five images along a path, for each of four samples: (5, 4, 1, 3, 4)."""
    source = torch.Generator().manual_seed(2)
    first, step = torch.rand(4, 1, 3, 4, generator=source, dtype=torch.float64), torch.rand(4, 1, 3, 4, generator=source)
    return torch.stack([first + 0.1 * t * step for t in range(5)])


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def walk(surrogate, path, seeds):
    with keyed(seeds):
        return torch.stack([surrogate(images) for images in path])


class OutOfMemoryOnce(PGD):
    """Has looked at its images when memory runs out, the first time."""

    failed: list[bool] = []

    def __call__(self, model, images, labels):
        found = super().__call__(model, images, labels)
        if not self.failed:
            self.failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found


def test_a_repeated_part_does_not_know_what_the_failed_one_has_seen(path):
    defense, images = engine(steps=4, warm_steps=1), path[0]
    labels = defense(images).argmax(1)
    attack = OutOfMemoryOnce(ThreatModel("l2", 0.2), steps=3)
    attack.failed.clear()
    repeated, calm = (run_cell(defense, attack, "warm", images, labels, Protocol()).verdict.images for _ in range(2))
    assert attack.failed
    assert torch.equal(repeated, calm)


def test_each_look_goes_on_from_the_last_one(path):
    defense = engine(warm_steps=3, classes=1)
    found = walk(defense.surrogate("warm"), path, range(4))
    (latents,) = defense.start(path[0])
    for number, images in enumerate(path):
        latents = descent(defense, images, latents, 30 if number == 0 else 3)
        assert_same(found[number], defense.log_joint(images, (Posterior(latents),)))
    assert_same(found[0], defense(path[0]))
    assert bool((found[1:] - defense(path[1])).abs().amax() > 1e-3)


def between_classes(defense, count):
    """So many steps from images of class 0 to images of class 1, for 12 samples."""
    codes = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first, second = defense.generator.decode_all((codes,)).detach()[:, :2].unbind(1)
    return torch.stack([torch.lerp(first, second, t) for t in torch.linspace(0, 1, count, dtype=torch.float64)])


def test_another_decision_is_one_of_whole_inference():
    defense = engine(steps=30, warm_steps=1)
    path = between_classes(defense, 3 * WHOLE_EVERY)
    found = walk(defense.surrogate("warm"), path, range(12))
    latents = defense.infer(path[0])[0].mean
    decisions, age, changes, refuted = defense(path[0]).argmax(1), torch.zeros(12, dtype=torch.long), 0, 0
    assert_same(found[0], defense(path[0]))
    for images, scores in zip(path[1:], found[1:], strict=True):
        latents, age = descent(defense, images, latents, 1), age + 1
        other = (age < WHOLE_EVERY) & (defense.log_joint(images, (Posterior(latents),)).argmax(1) != decisions)
        whole = other | (age == WHOLE_EVERY)
        latents[whole], age[whole] = defense.infer(images)[0].mean[whole], 0
        assert_same(scores, defense.log_joint(images, (Posterior(latents),)))
        changes, refuted = changes + int(other.sum()), refuted + int((scores.argmax(1) == decisions)[other].sum())
        decisions = scores.argmax(1)
    assert changes > refuted > 0


@pytest.mark.parametrize("random", [False, True])
def test_a_look_that_a_backward_pass_repeats_gives_the_same(random):
    defense = engine(steps=30, warm_steps=1, variational=random)
    warm, decisions = defense.surrogate("warm"), []
    with keyed(range(12)):
        for images in between_classes(defense, 2 * WHOLE_EVERY + 1):
            again = repeatable()
            first = warm(images)
            with again():
                assert torch.equal(warm(images), first)
            decisions.append(first.argmax(1))
    assert bool((torch.stack(decisions).diff(dim=0) != 0).any())


def test_where_the_image_hardly_moves_the_looks_are_one_long_descent(path):
    defense = engine(steps=2, warm_steps=4, classes=1)
    near = torch.stack([path[0] + 1e-9 * number for number in range(2 * WHOLE_EVERY + 1)])
    found = walk(defense.surrogate("warm"), near, range(4))
    for looks in (1, 5, WHOLE_EVERY - 1):
        for look in (looks, WHOLE_EVERY + looks):
            torch.testing.assert_close(found[look], engine(steps=2 + 4 * looks, classes=1)(path[0]), rtol=0, atol=1e-6)
    for look in (WHOLE_EVERY, 2 * WHOLE_EVERY):
        assert_same(found[look], defense(near[look]))


def test_without_streams_every_look_is_a_first_one(path):
    defense = engine(warm_steps=3)
    warm = defense.surrogate("warm")
    for images in path:
        assert_same(warm(images), defense(images))
    with keyed(range(2)):  # two rows in each of two: whose is whose is not known
        for images in path:
            assert_same(warm(images), defense(images))


def test_who_is_who_needs_no_random_streams(path):
    defense = engine(warm_steps=3)
    expected, warm = walk(defense.surrogate("warm"), path, range(4)), defense.surrogate("warm")
    for number, images in enumerate(path):
        with identified(range(4)):
            assert_same(warm(images), expected[number])
    assert not torch.equal(expected[-1], defense(path[-1]))


def test_the_gradient_holds_q_fixed(path):
    defense = engine(warm_steps=3, classes=1)
    warm = defense.surrogate("warm")
    with keyed(range(4)):
        warm(path[0])
        leaf = path[1].clone().requires_grad_()
        (found,) = torch.autograd.grad(warm(leaf).sum(), leaf)
    q = defense.resume(path[1], defense.infer(path[0]), 3)
    assert_same(found, -2 * (path[1] - defense.reconstruct(path[1], q)[:, 0]))


@pytest.mark.parametrize("random", [False, True])
def test_samples_do_not_mix_in_sub_batches(path, random):
    def warm():
        return engine(steps=10, warm_steps=3, variational=random).surrogate("warm")

    alone = [walk(warm(), path[:, i : i + 1], [i])[:, 0] for i in range(4)]
    looks, surrogate = [0] * 4, warm()
    with keyed(range(4)):
        for rows in ([3, 1], [0, 1, 2, 3], [1, 2], [2, 0, 3]):  # in the second batch some are new
            images = torch.stack([path[looks[i], i] for i in rows])
            with select(torch.tensor(rows)):
                scores = surrogate(images)
            for i, row in zip(rows, scores, strict=True):
                assert_same(row, alone[i][looks[i]])
                looks[i] += 1
    assert looks == [2, 3, 3, 3]


def test_restarts_and_draws_do_not_mix(path):
    def looks(surrogate, tries, numbers):
        """Of try t in draw s: the path forwards or backwards."""
        rows = torch.tensor([0, 1]).repeat_interleave(len(tries))
        found = []
        for step in range(3):
            images = torch.stack([path[step if t else 4 - step, i] for i in (0, 1) for t in tries])
            with branch(rows, list(tries) * 2), draws(numbers):
                found.append(surrogate(images.repeat_interleave(len(numbers), 0)).view(2, len(tries), len(numbers), 3))
        return torch.stack(found)

    defense = engine(warm_steps=3)
    with keyed(range(2)):
        together = looks(defense.surrogate("warm"), (0, 1), range(2))
    for t in (0, 1):
        for s in (0, 1):
            with keyed(range(2)):
                assert_same(looks(defense.surrogate("warm"), (t,), range(s, s + 1))[:, :, 0, 0], together[:, :, t, s])
    assert not torch.equal(together[1, :, 0], together[1, :, 1])


def test_a_second_look_at_the_same_image_gives_the_same(path):
    warm = engine(warm_steps=3).surrogate("warm")
    with keyed(range(4)):
        for images in path[:3]:
            first = warm(images)
            mixed = torch.cat([images[:2], path[4, 2:]])
            assert_same(warm(images), first)
            assert_same(warm(mixed)[:2], first[:2])


def variational(**settings):
    return EABS(SigmoidDecoders(), starts=16, steps=4, warm_steps=2, **settings).eval()


def test_a_decision_that_changes_is_seen_in_the_scores(digits, monkeypatch):
    warm, whole, changes = variational().surrogate("warm"), [], 0
    infer = warm._infer

    def counted(images, begin):
        whole.extend([] if begin is not None else [tuple(image.flatten().tolist()) for image in images])
        return infer(images, begin)

    monkeypatch.setattr(warm, "_infer", counted)
    with keyed(range(6)):
        before = warm(digits[0][:6]).argmax(1)
        for step in range(1, WHOLE_EVERY):
            images = (digits[0][:6] + 0.03 * step).clamp(0, 1)
            whole.clear()
            after = warm(images).argmax(1)
            for image, changed in zip(images, after != before, strict=True):
                assert not changed or tuple(image.flatten().tolist()) in whole
            changes, before = changes + int((after != before).sum()), after
    assert changes > 0


def test_chunks_of_draws_change_nothing(digits):
    images = digits[0][:3]

    def run(chunk):
        eot = EoT(variational().surrogate("warm"), 6, chunk=chunk)
        found = []
        with keyed(range(3)):
            for step in range(3):
                leaf = (images + 0.02 * step).clamp(0, 1).requires_grad_()
                scores = eot(leaf)
                found.append((scores.detach(), torch.autograd.grad(scores[:, 1].sum(), leaf)[0]))
        return found

    whole, single = run(None), run(1)
    for (scores, gradient), (others, other) in zip(whole, single, strict=True):
        torch.testing.assert_close(others, scores, rtol=1e-4, atol=1e-4)  # float32; inference amplifies rounding
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: ABS(SigmoidDecoders(), starts=16, steps=4, warm_steps=2).eval(), variational])
def test_an_evaluation_depends_on_neither_batches_nor_what_ran_before(make, digits):
    images, labels = digits[0][:5], digits[1][:5]
    attack = {"pgd": PGD(ThreatModel("l2", 1.0), steps=4, restarts=2)}

    def run(defense, size, order):
        batches = [(images[part], labels[part]) for part in order.split(size)]
        result = evaluate(defense, attack, batches, eot_samples=2, judge_draws=3, modes=("warm",))
        assert list(result.adversarials) == [("pgd", "warm")]
        return result.adversarials["pgd", "warm"][order.argsort()]

    defense = make()
    first = run(defense, 5, torch.arange(5))
    assert bool((first != images).any())
    assert torch.equal(run(defense, 5, torch.arange(5)), first)
    torch.testing.assert_close(run(make(), 4, torch.randperm(5)), first, rtol=0, atol=1e-4)


def test_the_modes():
    assert list(engine().surrogates()) == ["frozen", "unrolled"]
    defense = engine(warm_steps=3)
    modes = defense.surrogates()
    assert list(modes) == ["warm", "unrolled"]
    assert isinstance(modes["warm"], WarmStart)
    assert isinstance(modes["unrolled"], Unrolled)
    assert modes["warm"].steps == 3
    assert defense.surrogate("warm") is not modes["warm"]
    behind = TransformedClassifier(GaussianBlur(0.5), ABS(SigmoidDecoders(), starts=4, warm_steps=1), 4)
    assert list(behind.surrogates()) == ["warm", "unrolled"]


def test_attacks_without_gradients_ask_the_defense_itself(digits):
    images, labels = digits[0][:2], digits[1][:2]
    defense = ABS(SigmoidDecoders(), starts=8, steps=2, warm_steps=1).eval()
    plain = ABS(SigmoidDecoders(), starts=8, steps=2).eval()
    noise = {"noise": GaussianNoiseAttack(ThreatModel("linf", 0.2), tries=3)}
    found, expected = (evaluate(model, noise, [(images, labels)]).adversarials["noise", "none"] for model in (defense, plain))
    assert torch.equal(found, expected)


def test_modes_that_are_not_declared(digits):
    attack = {"pgd": PGD(ThreatModel("l2", 1.0), steps=1)}
    with pytest.raises(GenclsError, match="expected gradient modes among exact; got warm, frozen"):
        evaluate(small_cnn(), attack, [(digits[0][:2], digits[1][:2])], modes=("warm", "frozen"))


def test_bad_number_of_steps(generator):
    with pytest.raises(GenclsError, match="expected warm_steps >= 1 or None, got 0"):
        ABS(generator, starts=1, warm_steps=0)


@pytest.mark.parametrize("training", [False, True])
def test_it_begins_in_the_mode_of_the_classifier(training):
    assert engine(warm_steps=2).train(training).surrogate("warm").training is training
