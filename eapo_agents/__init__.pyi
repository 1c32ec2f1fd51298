from .evaluation import Report as Report, evaluate as evaluate
from .learning import (
    CISPO as CISPO,
    DAPO as DAPO,
    GRPO as GRPO,
    GSPO as GSPO,
    RLOO as RLOO,
    Algorithm as Algorithm,
    CustomAlgorithm as CustomAlgorithm,
    DrGRPO as DrGRPO,
    Learner as Learner,
    LearnerSettings as LearnerSettings,
    MaxRL as MaxRL,
)
from .policies import (
    Completion as Completion,
    HFPolicy as HFPolicy,
    OpenAIPolicy as OpenAIPolicy,
    Policy as Policy,
    Sampling as Sampling,
    VLLMPolicy as VLLMPolicy,
    VLLMServerPolicy as VLLMServerPolicy,
)
from .rollouts import (
    DynamicSampling as DynamicSampling,
    Group as Group,
    Rollout as Rollout,
    TokenLimits as TokenLimits,
    Trajectory as Trajectory,
)
from .training import (
    Run as Run,
    TrainConfig as TrainConfig,
    Trainer as Trainer,
    lead as lead,
    presets as presets,
    with_settings as with_settings,
)
