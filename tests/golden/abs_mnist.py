"""The family abs_mnist: the published ABS code, by our loader and engine."""

import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from gencls.defenses import Posterior
from gencls.zoo.networks import official_abs_decoders
from gencls.zoo.networks.abs.official import unused_official_abs_keys
from gencls.zoo.networks.abs.published import official_abs, published_codes, published_confidence, read_official_abs
from tests.golden.vectors import Family, State, Vectors

DEFAULTS = {"n_samples": 8000, "n_iter": 50, "clip": 5.0, "lr": 0.05, "beta": 1}  # of the published code
VARIANTS = {"base": "plain", "binary": "binary"}


def outputs(vectors: Vectors) -> dict[str, Tensor]:
    unknown = set(vectors.config) - set(DEFAULTS)
    assert not unknown, f"settings without a meaning here: {unknown}"
    settings = {"gain": 1.0, **vectors.entry, **DEFAULTS, **vectors.config}
    codes = vectors.arrays.get("start_latents")
    state = through_files(vectors.state)
    decoders = official_abs_decoders(state)
    if codes is None:
        codes = published_codes(settings["n_samples"], size=decoders.latent_shapes[0].numel())
    assert len(codes) == settings["n_samples"]
    found = {name: torch.tensor(settings[name]) for name in ("seed", "gain", *DEFAULTS)}
    for prefix, variant in VARIANTS.items():
        if any(name.startswith(f"{prefix}.") for name in vectors.names):
            arrays = inference(state, variant, vectors.arrays["image"], codes, settings)
            if (name := f"{prefix}.latents") in vectors.arrays:  # from the latents of the file: ours are compared by themselves
                arrays["reconstructions"] = decoders.decode_all((vectors.arrays[name][:1],))
            found |= {f"{prefix}.{name}": array for name, array in arrays.items()}
    for number in {int(match[1]) for match in map(re.compile(r"vae(\d+)\.").match, vectors.names) if match}:
        arrays = {"decoder_logits_start0": decoder_logits(state, number, codes[:1])}
        if (name := f"vae{number}.encoder_out") in vectors.arrays:
            arrays["decode_of_mu"] = decoders((vectors.arrays[name][:1, : codes.shape[1]],), torch.tensor([number]))
        found |= {f"vae{number}.{name}": array for name, array in arrays.items()}
    return found


def through_files(state: State) -> State:
    """As one reads the published weights: one file per network, keys without its name."""
    networks: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        network, rest = key.split(".", 1)
        networks.setdefault(network, {})[rest] = tensor
    with tempfile.TemporaryDirectory() as folder:
        for network, tensors in networks.items():
            torch.save(tensors, Path(folder) / f"{network.replace('VAE', 'ABS')}.net")
        return read_official_abs(folder, num_classes=len(networks))


def inference(state: State, variant: str, images: Tensor, codes: Tensor, settings: dict) -> dict[str, Tensor]:
    pixels = images[0].numel()  # the published code divides by it
    defense = official_abs(
        state,
        variant=variant,
        codes=codes,
        steps=max(settings["n_iter"] - 1, 0),  # n_iter counts evaluations; the last one is not followed by a step
        lr=settings["lr"],
        beta=settings["beta"],
        radius=settings["clip"],
    )
    scores = defense(images)
    bayes, seen = (defense, images) if variant == "plain" else (defense.classifier, defense.transform(images))
    q = bayes.infer(seen)
    starts = bayes.classifier.start(seen)
    return {
        "start_latent_best": starts[0],
        "start_elbo_min": -bayes.log_joint(seen, tuple(map(Posterior, starts))) / pixels,
        "logits": scores / pixels,
        "elbo": -bayes.log_joint(seen, q) / pixels,
        "latents": q[0].mean,
        "confidence": published_confidence(scores, pixels=pixels),
    }


def decoder_logits(state: State, number: int, codes: Tensor) -> Tensor:
    """Before the sigmoid, whose values near 1 have few digits left: decoders with a negated last layer give those below 0."""
    negated = {key: -value if ".Decoder.conv_3." in key else value for key, value in state.items()}
    both = (official_abs_decoders(weights).double() for weights in (state, negated))
    below, above = (decoders((codes.double(),), torch.tensor([number])).logit() for decoders in both)
    return torch.where(below < 0, below, -above)


def tolerance(name: str, expected: Tensor) -> float:
    if not expected.is_floating_point():
        return 0.0  # settings
    if name.endswith(("latents", "start_latent_best")):
        return 1e-3  # Adam divides by the size of the gradient, so that it amplifies rounding
    if name.endswith(("logits", "elbo", "start_elbo_min")):
        return 1e-5  # errors of latents come out multiplied by their gradient, which the descent has made small
    return 1e-4 * max(1.0, float(expected.abs().max()))  # convolutions of other backends differ by 1e-6 of the largest value


ABS_MNIST = Family(
    inputs=frozenset({"image", "start_latents"}),
    outputs=outputs,
    left_out={".encoder_out": "the encoders are not built: they served training only"},
    tolerance=tolerance,
    load=official_abs_decoders,
    unused=unused_official_abs_keys,
    optional=("num_batches_tracked",),
)
