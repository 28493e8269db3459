"""``gencls names``, ``data`` and ``weights`` list what the zoo has."""

import argparse

__all__ = ["run_data", "run_names", "run_weights"]


def run_names(options: argparse.Namespace) -> None:
    """Print the names of everything that has one."""
    from gencls import zoo
    from gencls.eval.attacks import presets
    from gencls.zoo.training import PRESETS

    for title, names in (
        ("defenses", zoo.names()),
        ("generators", zoo.generator_names()),
        ("distances", zoo.distance_names()),
        ("trainings", PRESETS),
        ("attacks", presets.names()),
        ("sets of attacks", presets.PRESETS),
        ("data sets", zoo.data_names()),
    ):
        print(f"{title}: {' '.join(names)}")


def run_data(options: argparse.Namespace) -> None:
    """Print for each split whether it can be read. A named data set that cannot be read is an error."""
    from gencls.core import GenclsError
    from gencls.zoo import data_names, load_data, split_names
    from gencls.zoo.data import count_images

    if options.download and options.name is None:
        raise GenclsError("data: expected the name of the data set to download, got none")
    for name in [options.name] if options.name else data_names():
        for split in split_names(name):
            try:
                # one image of any size: a set whose images differ in size needs to know one
                data = load_data(name, split, root=options.data_root, limit=1, size=32, download=options.download)
            except GenclsError as error:
                if options.name:
                    raise
                reason = str(error).splitlines()[0].removeprefix(f"{name}: ")
                print(f"{name:24}{split:16}not available: {reason}")
            else:
                # one set by its name is worth a second look at its files
                images = f"{count_images(name, split, root=options.data_root):,} images, " if options.name else ""
                print(f"{name:24}{split:16}found, {images}{data.num_classes} classes")
    if options.name is None:
        print("`gencls data NAME` says where a set is looked for and what is wrong with it")


def run_weights(options: argparse.Namespace) -> None:
    """Print the cards of weights files, or check the files against them."""
    from gencls.core import GenclsError
    from gencls.zoo.checkpoints.cards import read_card
    from gencls.zoo.checkpoints.checkpoint import verify_checkpoint
    from gencls.zoo.checkpoints.places import WEIGHTS
    from gencls.zoo.registry import ARCHITECTURES

    files = options.files or sorted(WEIGHTS.glob("*.safetensors"))
    verify = options.action == "verify"
    failures = []
    for file in files:
        try:
            card = verify_checkpoint(file, ARCHITECTURES) if verify else read_card(file)
        except GenclsError as error:
            failures.append(str(error))
            continue
        if verify:
            print(f"{card.name}: verified, SHA-256 {card.sha256}")
        else:
            print(f"{card.name} ({card.size / 1e6:.2f} MB, {card.licence})\n  {card.what}")
            print(f"  trained on {card.trained_on}, with: {card.command}")
            for what, value in card.metrics.items():
                print(f"  {what}: {value:.4g}" if isinstance(value, float) else f"  {what}: {value}")
    if failures:
        raise GenclsError("\n".join(failures))
