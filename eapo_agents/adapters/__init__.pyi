from .openenv import (
    EapoAction as EapoAction,
    EapoClient as EapoClient,
    EapoEnvironment as EapoEnvironment,
    EapoObservation as EapoObservation,
    ServedParts as ServedParts,
    served_app as served_app,
)
from .trl import EapoRollouts as EapoRollouts
