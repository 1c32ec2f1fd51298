from .benchmarks.run import (
    BenchmarkExperts as BenchmarkExperts,
    BenchmarkSettings as BenchmarkSettings,
    run_benchmarks as run_benchmarks,
)
from .build import chat_model_of as chat_model_of, leap_of as leap_of, player_of as player_of
from .cold_start import cold_start as cold_start, cold_start_trainer as cold_start_trainer
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
from .distillation import (
    distill as distill,
    distillation_trainer as distillation_trainer,
)
from .doctor.examination import examine as examine
from .doctor.experts import experts_at as experts_at
from .doctor.finding import Finding as Finding
from .imitation import ImitationStep as ImitationStep, Teacher as Teacher
from .leap import Leap as Leap, LeapSettings as LeapSettings
from .solutions import (
    Solution as Solution,
    SolutionCollector as SolutionCollector,
    add_solutions as add_solutions,
    check_recording as check_recording,
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
