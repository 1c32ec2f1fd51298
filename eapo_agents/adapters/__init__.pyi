from .trl import EapoRollouts as EapoRollouts
