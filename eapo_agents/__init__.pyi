from .evaluation import Report as Report, evaluate as evaluate
from .learning import (
    CISPO as CISPO,
    DAPO as DAPO,
    DR_GRPO as DR_GRPO,
    GRPO as GRPO,
    GSPO as GSPO,
    RLOO as RLOO,
    Algorithm as Algorithm,
    Learner as Learner,
    LearnerSettings as LearnerSettings,
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
from .training import Run as Run, TrainConfig as TrainConfig, Trainer as Trainer, presets as presets
