"""What a distance is called in a table."""

from gencls.core import ImageDistance, checked
from gencls.perceptual.combined import Combined
from gencls.perceptual.elpips import ELPIPS
from gencls.perceptual.features import FeatureDistance
from gencls.perceptual.lpips import LPIPS
from gencls.perceptual.trunks import TRUNKS

__all__ = ["title_of"]


@checked
def title_of(distance: ImageDistance) -> str:
    """Name a distance with the network behind it: "E-LPIPS over LPIPS (shift-tolerant AlexNet)".

    A distance of another kind has the name of its class. Two distances of one kind of network have the same name, whatever
    their weights.
    """
    match distance:
        case ELPIPS():
            return f"E-LPIPS over {title_of(distance.distance)}"
        case LPIPS():
            trunk = TRUNKS[distance.net].title
            return f"LPIPS ({trunk})" if distance.lpips else f"features of {trunk}"
        case FeatureDistance():
            return f"features of {type(distance.network).__name__}"
        case Combined():
            return f"{title_of(distance.pixel)} + {distance.weight:g} x {title_of(distance.percept)}"
    return type(distance).__name__
