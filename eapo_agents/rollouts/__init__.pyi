from .dynamic_sampling import DynamicSampling as DynamicSampling, Sampled as Sampled
from .paradigms import Paradigm as Paradigm, paradigm_of as paradigm_of, shares as shares
from .rollout import (
    GateDraws as GateDraws,
    Rollout as Rollout,
    TokenLimits as TokenLimits,
    derive_seed as derive_seed,
    gather as gather,
)
from .text_rollout import (
    CHARS_A_TOKEN as CHARS_A_TOKEN,
    Attempt as Attempt,
    TextRollout as TextRollout,
    consult_about_whole as consult_about_whole,
)
from .trajectory import (
    Demonstration as Demonstration,
    Group as Group,
    Ids as Ids,
    Logprobs as Logprobs,
    Mask as Mask,
    Trajectory as Trajectory,
    encode as encode,
)
