"""The data sets of the thesis's tables, and how long we train on each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ThesisData:
    """The thesis's settings for a data set (section 2.3, Tables 2.1 to 2.5), and how long we train on it.

    Attributes:
        name: the data set's name in the names of weights.
        data: name of the data set.
        architecture: name of a column of Table 2.1.
        noise: standard deviation of the additive noise, in [0, 1] pixel units.
        linf: Linf radius of the tables, in [0, 1] pixel units.
        l2: L2 radius of the tables, in [0, 1] pixel units.
        long: factor on the epochs of plain trainings: small sets need more passes.
        adversarial: factor on the epochs of adversarial trainings.
    """

    name: str
    data: str
    architecture: str
    noise: float
    linf: float
    l2: float
    long: float = 1.0
    adversarial: float = 1.0


DATA_SETS = (
    ThesisData("mnist", "mnist", "mnist", noise=0.2, linf=0.3, l2=1.5),
    ThesisData("fashion", "fashion-mnist", "fashion-mnist", noise=0.2, linf=0.1, l2=1.5, adversarial=0.5),
    ThesisData("gtsrb10", "gtsrb10", "supertraffic10", noise=0.01, linf=8 / 255, l2=1.5, long=4.0),
    ThesisData("supertraffic10", "supertraffic10", "supertraffic10", noise=0.01, linf=8 / 255, l2=1.5, long=4.0),
    ThesisData("svhn", "svhn", "svhn", noise=0.01, linf=8 / 255, l2=1.5),
)


def radii(data: str) -> tuple[float, float] | None:
    """The Linf and L2 radii of the thesis's table of a data set (Tables 2.2 to 2.5); None without such a table.

    The embedded digits have MNIST's radii.
    """
    return next(((of.linf, of.l2) for of in DATA_SETS if of.data == data.removesuffix("-embedded")), None)
