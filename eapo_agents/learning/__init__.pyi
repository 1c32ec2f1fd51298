from .advantages import (
    Advantages as Advantages,
    Rewards as Rewards,
    centred_advantages as centred_advantages,
    group_advantages as group_advantages,
    leave_one_out_advantages as leave_one_out_advantages,
    max_rl_advantages as max_rl_advantages,
)
from .algorithms import (
    CISPO as CISPO,
    DAPO as DAPO,
    GRPO as GRPO,
    GSPO as GSPO,
    RLOO as RLOO,
    Algorithm as Algorithm,
    AlgorithmSettings as AlgorithmSettings,
    CustomAlgorithm as CustomAlgorithm,
    DrGRPO as DrGRPO,
    MaxRL as MaxRL,
    PythonAlgorithm as PythonAlgorithm,
    StatefulAlgorithm as StatefulAlgorithm,
)
from .batches import (
    LAYOUTS as LAYOUTS,
    Row as Row,
    make_batches as make_batches,
    padded as padded,
    rows_of_groups as rows_of_groups,
)
from .distributed import (
    SINGLE_PROCESS as SINGLE_PROCESS,
    AnyInterrupted as AnyInterrupted,
    End as End,
    Processes as Processes,
    Refused as Refused,
    SeveralProcesses as SeveralProcesses,
    check_all_joined as check_all_joined,
    check_leads as check_leads,
    end_process as end_process,
    joined as joined,
    num_launched as num_launched,
    shard_over as shard_over,
)
from .learner import (
    Learner as Learner,
    NonFiniteUpdateError as NonFiniteUpdateError,
    check_metric_names as check_metric_names,
    saved_state as saved_state,
)
from .logprobs import token_logprobs as token_logprobs
from .lora import Adapters as Adapters, LoRA as LoRA
from .losses import (
    Loss as Loss,
    LossInputs as LossInputs,
    LossOutput as LossOutput,
    Normalisation as Normalisation,
    batch_mean as batch_mean,
    cispo_loss as cispo_loss,
    constant_mean as constant_mean,
    dapo_loss as dapo_loss,
    dr_grpo_loss as dr_grpo_loss,
    group_mean as group_mean,
    grpo_loss as grpo_loss,
    gspo_loss as gspo_loss,
    rloo_loss as rloo_loss,
    sequence_mean as sequence_mean,
    sft_loss as sft_loss,
)
from .process_commands import (
    Command as Command,
    ComputeLogprobs as ComputeLogprobs,
    GatherState as GatherState,
    GatherWeights as GatherWeights,
    Imitate as Imitate,
    LoadShards as LoadShards,
    LoadState as LoadState,
    SaveShards as SaveShards,
    Update as Update,
)
from .settings import LearnerSettings as LearnerSettings
from .spec import Begin as Begin, LearnerSpec as LearnerSpec
from .start_check import (
    PolicyCheck as PolicyCheck,
    check_layout as check_layout,
    check_policy as check_policy,
    check_sampler as check_sampler,
    check_saves as check_saves,
)
from .sync_probe import SyncProbe as SyncProbe
