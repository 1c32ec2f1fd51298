from .openenv import (
    EapoAction as EapoAction,
    EapoClient as EapoClient,
    EapoEnvironment as EapoEnvironment,
    EapoObservation as EapoObservation,
    ServedParts as ServedParts,
    served_app as served_app,
)
from .trl import EapoRollouts as EapoRollouts
from .verifiers import EapoHarness as EapoHarness, EapoTaskset as EapoTaskset
from .verl_config import (
    problem_of as problem_of,
    verl_rows as verl_rows,
    verl_settings as verl_settings,
)
from .verl_loop import EapoAgentLoop as EapoAgentLoop
