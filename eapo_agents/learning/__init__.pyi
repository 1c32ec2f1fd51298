from .advantages import (
    Advantages as Advantages,
    centred_advantages as centred_advantages,
    group_advantages as group_advantages,
    leave_one_out_advantages as leave_one_out_advantages,
)
from .algorithms import (
    ALGORITHMS as ALGORITHMS,
    CISPO as CISPO,
    DAPO as DAPO,
    DR_GRPO as DR_GRPO,
    GRPO as GRPO,
    GSPO as GSPO,
    RLOO as RLOO,
    Algorithm as Algorithm,
    DapoSettings as DapoSettings,
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
    End as End,
    Order as Order,
    Processes as Processes,
    Question as Question,
    SeveralProcesses as SeveralProcesses,
    joined as joined,
    leaving as leaving,
    shard_over as shard_over,
)
from .learner import Learner as Learner
from .logprobs import token_logprobs as token_logprobs
from .lora import Adapters as Adapters
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
from .settings import LearnerSettings as LearnerSettings
from .sync_probe import SyncProbe as SyncProbe
