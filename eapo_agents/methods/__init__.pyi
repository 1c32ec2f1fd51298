from .build import chat_model_of as chat_model_of, leap_of as leap_of, player_of as player_of
from .decisions import (
    Decide as Decide,
    DecisionVectorEnv as DecisionVectorEnv,
    DemonstratorWriter as DemonstratorWriter,
    ModelWriter as ModelWriter,
    RulesAt as RulesAt,
    ScheduledRules as ScheduledRules,
    Score as Score,
    always as always,
    play as play,
)
from .distillation import distill as distill
from .leap import Leap as Leap, LeapSettings as LeapSettings
from .solutions import (
    Collection as Collection,
    Solution as Solution,
    forget_unavailable as forget_unavailable,
    read_solutions as read_solutions,
)
from .workflows import (
    Condition as Condition,
    Workflow as Workflow,
    error_rate as error_rate,
    usual_replies as usual_replies,
    with_pool as with_pool,
)
