"""``gencls attack`` runs defenses under attacks in one study; ``gencls report`` writes the report of an existing study."""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencls._commands.arguments import check_out
from gencls._commands.asked import build_defense, draw_settings, load_images, weights_of, wrong_classes

if TYPE_CHECKING:
    import pandas

    from gencls.eval import Attack

__all__ = ["build_attacks", "run_attack", "run_report"]


def run_attack(options: argparse.Namespace) -> int:
    """Run or resume the study, print its table and the path of its report; return 1 if a requested diagnosis failed, else 0."""
    from gencls._commands.doctor import diagnose_study
    from gencls.core import GenclsError, find_device
    from gencls.eval import Protocol, Study, progress_bar
    from gencls.eval.study.cost import forecast, shadow
    from gencls.zoo.registry import is_weights_file

    attacks = build_attacks(options.attack, options.epsilon, steps=options.steps, restarts=options.restarts)
    balls = [(attack.threat.norm, attack.threat.epsilon) for attack in attacks.values() if attack.threat.epsilon is not None]
    if options.doctor and not balls:
        raise GenclsError("--doctor: expected an attack within a ball, whose epsilon the diagnosis takes; got none")
    data = load_images(options, _choosing_seed(options))
    device = find_device(options.device)
    weights = weights_of(options.defense, options.weights)
    defenses = {
        _short(spec, options.defense): build_defense(spec, data, weights.get(spec)).to(device) for spec in options.defense
    }
    classes = wrong_classes(defenses, data, options.data)
    files = [*weights.values(), *filter(is_weights_file, options.defense)]
    protocol = Protocol(
        memory=options.memory, eight_bit=options.eight_bit, streams=options.streams, **draw_settings(options, defenses)
    )
    names = [*dict.fromkeys(options.defense), *attacks]
    folder = options.out or Path("runs") / _folder_name(options, names, f"{data.name}{len(data)}")
    check_out(folder)
    plan = partial(
        Study,
        defenses=defenses,
        attacks=attacks,
        images=data.images,
        labels=data.labels,
        protocol=protocol,
        seeds=tuple(options.seed),
        about={
            "data": f"{data.name} {data.split}, {len(data)} images",
            "command": options.command,
            **({"weights": ", ".join(map(str, files))} if files else {}),
            **({"warning": classes} if classes else {}),
        },
    )

    def diagnosed(study: Study) -> tuple[str, ...]:
        settings = {"eot_samples": protocol.eot_samples, "seed": options.seed[0], "dry_run": options.dry_run}
        return diagnose_study(study, data, *balls[0], **settings) if options.doctor else ()

    if options.dry_run:
        with shadow(folder) as place:
            study = plan(place)
            diagnosed(study)
            print(*forecast(study), sep="\n")
        return 0
    study = plan(folder)
    meaningless = diagnosed(study)
    _print(study.run(progress=progress_bar(study)))
    _write_report(study.folder)
    return 1 if meaningless else 0


def run_report(options: argparse.Namespace) -> int:
    """Write the report from the records in the folder and print its path; return 1 if cells are missing, else 0."""
    return 0 if _write_report(options.folder) else 1


def _write_report(folder: Path) -> bool:
    """Write the report of a folder, print its path, and name the cells that are missing; return whether none is."""
    from gencls.eval.report.study.from_folder import UnfinishedWarning, report_study

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UnfinishedWarning)
        print(report_study(folder))
    for warning in said:
        print(f"gencls: warning: {warning.message}", file=sys.stderr)
    return not any(warning.category is UnfinishedWarning for warning in said)


def _folder_name(options: argparse.Namespace, names: list[str], data: str) -> str:
    """Name the folder of a study that the user gave none: the study's settings in words, as far as a name can hold them."""
    from gencls.core.files import shortened

    chosen = {"eps": options.epsilon, "steps": options.steps, "restarts": options.restarts, "size": options.size}
    settings = "".join(f"-{key}{value:g}" for key, value in chosen.items() if value is not None)
    settings += "-8bit" if options.eight_bit else ""
    settings += "-device" if options.streams == "device" else ""
    settings += f"-{options.weights}" if options.weights else ""
    name = f"{'+'.join(names)}{settings}-{data}-seed{'+'.join(map(str, options.seed))}"
    return shortened(name.replace(":", ".").replace("/", ".").lstrip("."))


def _choosing_seed(options: argparse.Namespace) -> int:
    """The seed that chooses among the images: the study's first one, read from its folder if the study exists."""
    from gencls.eval.study.settings import SETTINGS, read_study

    there = options.out is not None and (options.out / SETTINGS).is_file()
    return int(read_study(options.out)["seeds"][0] if there else options.seed[0])


def build_attacks(
    names: list[str], epsilon: float | None, *, steps: int | None = None, restarts: int | None = None
) -> "dict[str, Attack]":
    """Build attacks of one norm from names of attacks or sets; None keeps each attack's own steps or restarts.

    Raises:
        GenclsError: for an unknown name, two norms, a value that is missing or out of range, or one that an attack does not
            take.
    """
    from gencls.core import GenclsError
    from gencls.eval.attacks.presets import PRESETS, attack_by_name, preset_by_name, settings_of

    takes_none = not any("epsilon" in settings_of(name) for name in names)
    attacks: dict[str, Attack] = {}
    for name in names:
        radius = epsilon if takes_none or "epsilon" in settings_of(name) else None  # minimal attacks beside those in a ball
        if name not in PRESETS:
            found = {name: attack_by_name(name, radius, steps=steps, restarts=restarts)}
        elif steps is None and restarts is None:
            found = dict(preset_by_name(name, radius))
        else:
            raise GenclsError(
                f"attack: expected neither steps nor restarts for {name}, whose attacks have budgets of their own, got "
                f"{steps} and {restarts}; leave them out, or name single attacks"
            )
        if twice := [key for key in found if key in attacks and repr(attacks[key]) != repr(found[key])]:
            raise GenclsError(f"attack: expected one attack of each name, got two with other settings: {', '.join(twice)}")
        attacks |= found
    if len({attack.threat.norm for attack in attacks.values()}) > 1:
        raise GenclsError(f"attack: expected attacks of one norm, because there is one epsilon; got {', '.join(names)}")
    return attacks


def _short(spec: str, specs: list[str]) -> str:
    """The name of a defense in tables: a weights file goes by its name without the folder, if no other file shares the name."""
    from gencls.zoo.registry import is_weights_file

    name = Path(spec).name
    unique = [Path(other).name for other in specs].count(name) == 1
    return name if is_weights_file(spec) and unique else spec


def _print(table: "pandas.DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table

    from gencls.eval.report.formats import distance
    from gencls.eval.report.study.columns import BY_NAME

    drawn = bool((table["draws"] > 1).any())
    excluded, lost = (BY_NAME[name].shown(table) for name in ("excluded", "lost_to_eight_bit"))
    heads = ["defense", "attack", "gradient", "N"] + ["excluded"] * excluded + ["clean %", "robust % [95 % interval]"]
    several = [name for name in ("epsilon", "seed") if table[name].nunique() > 1]
    heads[3:3] = several
    shown = Table(*heads, *["majority %"] * drawn, *["lost to 8 bits"] * lost, "median distance", "not found")
    for row in table.to_dict("records"):
        minimal = row["epsilon"] != row["epsilon"]  # NaN: such an attack minimises the distance

        def words(name: str, said: bool = True, row: dict[str, Any] = row) -> str:
            return BY_NAME[name].words(row) if said else ""

        attack = words("attack") + (", 8-bit" if row["eight_bit"] else "")
        cells = [words("defense"), attack, words("gradient"), *map(words, several)]
        cells += [words("n")] + [words("excluded")] * excluded
        cells += [words("clean_accuracy"), words("robust_accuracy", not minimal)]
        cells += [words("majority_accuracy", not minimal)] * drawn + [words("lost_to_eight_bit")] * lost
        median = distance(row["median_distance"]) if minimal else ""
        shown.add_row(*cells, median, words("failures", minimal))
    console = Console(markup=False, emoji=False)  # a name may hold brackets and colons
    if not console.is_terminal:  # a file or a pipe has no width to cut names to
        console = Console(width=160, markup=False, emoji=False)
    console.print(shown)
    for row in table.itertuples():
        if row.warnings:
            which = "".join(f", {name} {BY_NAME[name].words(row._asdict())}" for name in several)
            console.print(f"warning: {row.defense}, {row.attack}, {row.gradient}{which}: {row.warnings}", soft_wrap=True)
