"""Tables 2.2 to 2.9 as the thesis prints them, in percent and in pixel units of [0, 1].

Slips of the print are kept, and named in :data:`SLIPS`.
"""

from collections.abc import Mapping

MODELS = {"cnn": "CNN", "adv-linf": "Adv-L∞", "adv-l2": "Adv-L2", "abs": "ABS", "eabs": "E-ABS"}
"""The columns of Tables 2.2 to 2.5, in their order."""

Rows = Mapping[str, tuple[float, ...]]

ACCURACY: Mapping[str, Rows] = {
    "2.2": {  # MNIST
        "clean": (99.5, 98.5, 98.6, 96.1, 99.4),
        "pgd-linf": (0, 90.4, 0, 3.4, 17.1),
        "deepfool-linf": (17.4, 92.9, 43.8, 6.2, 31),
        "noise-linf": (99.3, 98.4, 98.5, 95.8, 99.1),
        "all-linf": (0, 90.3, 0, 3.3, 16.5),
        "pgd-l2": (72.8, 88.4, 89.3, 75.2, 90.6),
        "ddn-l2": (62.3, 81.7, 87.5, 74.1, 91.4),
        "cw-l2": (86.8, 91.2, 94.7, 82.8, 94.8),
        "deepfool-l2": (83.8, 93.1, 92.2, 95.9, 91.1),
        "noise-l2": (99.3, 98.5, 98.6, 74.4, 99.4),
        "all-l2": (61.8, 81.5, 87.5, 73.7, 90.4),
    },
    "2.3": {  # FashionMNIST
        "clean": (91.0, 88.9, 87.4, 81.6, 90.1),
        "pgd-linf": (9.4, 57, 56, 46.2, 43.5),
        "deepfool-linf": (25.9, 64.9, 63.2, 47.7, 45.7),
        "noise-linf": (90.5, 88.9, 86.5, 81.4, 0.9),
        "all-linf": (9.4, 57, 55.7, 45.8, 43.5),
        "pgd-l2": (19.1, 51.9, 59.2, 46.6, 43.3),
        "ddn-l2": (13.4, 46.6, 57.2, 45.4, 49.9),
        "cw-l2": (30.7, 61, 63.6, 50.7, 54.1),
        "deepfool-l2": (28.9, 56.4, 60.4, 46.4, 44.3),
        "noise-l2": (90.9, 88.8, 87.1, 81.2, 89.6),
        "all-l2": (13.2, 45.9, 55.1, 45.2, 41.7),
    },
    "2.4": {  # SuperTraffic-10
        "clean": (99, 91.4, 91.6, 84.9, 92.7),
        "pgd-linf": (29.8, 74.3, 60.2, 53.4, 70.9),
        "deepfool-linf": (48.1, 74.9, 64.6, 54.5, 82.1),
        "noise-linf": (99.1, 91.7, 91.6, 84.8, 91.7),
        "all-linf": (29.8, 73.7, 59.9, 53.2, 69.8),
        "pgd-l2": (14.8, 46.2, 53.7, 48, 66.1),
        "ddn-l2": (9.3, 44.6, 52.4, 47.1, 73),
        "cw-l2": (14.5, 51, 54.5, 47, 73.8),
        "deepfool-l2": (33, 49, 56.6, 48.7, 93.3),
        "noise-l2": (98.6, 91.6, 91.4, 86.3, 73.8),
        "all-l2": (8.7, 44.3, 52.2, 46.3, 59.9),
    },
    "2.5": {  # SVHN
        "clean": (91.3, 89.0, 87.1, 45.8, 89.2),
        "pgd-linf": (0, 37.2, 26.7, 6.6, 57),
        "deepfool-linf": (0.1, 50.4, 36.6, 8.4, 64.1),
        "noise-linf": (90.7, 89, 87, 45.7, 89.3),
        "all-linf": (0, 37.2, 26.7, 6.6, 55.7),
        "pgd-l2": (0, 5.1, 13.4, 4.4, 40.9),
        "ddn-l2": (0, 3.7, 11.6, 4.3, 57.8),
        "cw-l2": (0, 5.5, 13.7, 4.5, 47.6),
        "deepfool-l2": (0, 13.4, 19.1, 4.7, 51.6),
        "noise-l2": (90, 89.4, 87.4, 43.5, 88.8),
        "all-l2": (0, 3.6, 10.9, 4.3, 36),
    },
}
"""Table -> row -> one accuracy per model."""

_ABS_EXCHANGED = "95.9 and 74.4 (ABS, DeepFool and noise under L2) look exchanged: noise is no stronger than C&W"
_EABS_EXCHANGED = "93.3 and 73.8 (E-ABS, DeepFool and noise under L2) look exchanged: 93.3 exceeds the clean 92.7"

SLIPS: Mapping[str, Mapping[tuple[str, str], str]] = {
    "2.2": {("deepfool-l2", "abs"): _ABS_EXCHANGED, ("noise-l2", "abs"): _ABS_EXCHANGED},
    "2.3": {("noise-linf", "eabs"): "0.9 (E-ABS, noise under L∞) must be near 90: no attack there leaves less than 43.5"},
    "2.4": {("deepfool-l2", "eabs"): _EABS_EXCHANGED, ("noise-l2", "eabs"): _EABS_EXCHANGED},
    "2.5": {},
}
"""Table -> (row, model) -> what must be wrong in the print."""

INSIGNIFICANT: Mapping[str, Mapping[str, frozenset[frozenset[str]]]] = {
    "2.2": {"linf": frozenset(), "l2": frozenset()},
    "2.3": {
        "linf": frozenset({frozenset({"adv-linf", "adv-l2"}), frozenset({"abs", "eabs"})}),
        "l2": frozenset({frozenset({"adv-linf", "abs"}), frozenset({"abs", "eabs"})}),
    },
    "2.4": {"linf": frozenset(), "l2": frozenset({frozenset({"adv-linf", "abs"})})},
    "2.5": {"linf": frozenset({frozenset({"adv-linf", "abs"})}), "l2": frozenset()},
}
"""Table -> norm -> the pairs whose difference its McNemar tests leave open at p < 0.01 (the matrices' values are figures)."""

ABLATION: Mapping[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    "A-ABS": (21.89, (0.020, 0.013), (0.98, 0.75)),
    "D-ABS": (43.82, (0.023, 0.025), (0.063, 0.056)),
    "V-ABS": (42.01, (0.008, 0.006), (0.10, 0.08)),
    "AD-ABS": (30.59, (0.013, 0.013), (0.66, 0.56)),
    "AV-ABS": (53.46, (0.025, 0.022), (0.81, 0.75)),
    "DV-ABS": (62.42, (0.016, 0.006), (0.38, 0.09)),
    "ADV-ABS": (88.30, (0.046, 0.041), (1.78, 1.56)),
}
"""Table 2.6, SVHN: natural accuracy, mean and median distance of the closest adversarials of PGD-Linf and of PGD-L2."""

SWEEPS: Mapping[str, Mapping[int, float]] = {
    "2.7": {1: 57.5, 2: 58.4, 3: 57.8, 5: 58.7, 10: 58.6},  # runs of EoT, with 5 starts
    "2.8": {5: 57.9, 10: 57.3, 15: 56.8, 20: 56, 50: 56},  # random starts, with 100 steps and 3 runs
    "2.9": {0: 87.5, 10: 78, 30: 63.5, 50: 51.5, 100: 51.5, 200: 52, 500: 51.5},  # steps, with 20 starts, 3 runs, N = 200
}
"""Tables 2.7 to 2.9, SVHN: value -> accuracy under PGD-Linf."""
