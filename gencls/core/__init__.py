"""What a defense is, without knowing any method: contracts, random streams, surrogates, the inner optimisation.

Notation of the whole package: N images, K classes, L latent levels, S draws. Images are floating point, (N, C, H, W), in
[0, 1]; labels int64 (N,); scores (N, K); distances (N,); norms in units of [0, 1] pixels (8/255, never 8).
"""

from gencls.core.bayes import BayesClassifier, Unrolled
from gencls.core.bpda import BPDA
from gencls.core.defense import Defense, Transform, TransformedClassifier
from gencls.core.devices import find_device
from gencls.core.distance import Embedding, ImageDistance
from gencls.core.eot import EoT, forward_draws, repeat_rows
from gencls.core.errors import GenclsError
from gencls.core.generator import BlockwiseGenerator, ClassConditionalGenerator, Latents, Mix, MultiLatentModel
from gencls.core.gradient_modes import EXACT, GradientMode
from gencls.core.images import check_images, check_labels
from gencls.core.inference import minimize
from gencls.core.keys import Key, fingerprint, key_of
from gencls.core.modules.modes import check_eval_mode, evaluated, frozen, in_eval_mode
from gencls.core.modules.wrappers import declared, surrogates_of
from gencls.core.names import did_you_mean
from gencls.core.rows import branch, draws, identified, rows_per_stream, select
from gencls.core.settings import check_settings, checked
from gencls.core.streams.generators import Streams
from gencls.core.streams.keyed import keyed, repeated
from gencls.core.streams.seeds import seeded, stream_seed

__all__ = [
    "BPDA",
    "EXACT",
    "BayesClassifier",
    "BlockwiseGenerator",
    "ClassConditionalGenerator",
    "Defense",
    "Embedding",
    "EoT",
    "GenclsError",
    "GradientMode",
    "ImageDistance",
    "Key",
    "Latents",
    "Mix",
    "MultiLatentModel",
    "Streams",
    "Transform",
    "TransformedClassifier",
    "Unrolled",
    "branch",
    "check_eval_mode",
    "check_images",
    "check_labels",
    "check_settings",
    "checked",
    "declared",
    "did_you_mean",
    "draws",
    "evaluated",
    "find_device",
    "fingerprint",
    "forward_draws",
    "frozen",
    "identified",
    "in_eval_mode",
    "key_of",
    "keyed",
    "minimize",
    "repeat_rows",
    "repeated",
    "rows_per_stream",
    "seeded",
    "select",
    "stream_seed",
    "surrogates_of",
]
