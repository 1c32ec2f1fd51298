from . import presets as presets
from .build import (
    evaluate_alone as evaluate_alone,
    make_rollout as make_rollout,
    policy_of as policy_of,
    probe_of as probe_of,
    training_policy as training_policy,
    without as without,
)
from .config import TrainConfig as TrainConfig, with_settings as with_settings
from .follower import follow as follow
from .interruption import interruption as interruption, termination as termination
from .report.plots import Bar as Bar, bars_figure as bars_figure, picture as picture, save as save
from .report.report import sheets as sheets, write_report as write_report
from .report.runs import methods_of as methods_of
from .run import Run as Run, model_config as model_config, read_evaluation as read_evaluation
from .settings import (
    DistillationSettings as DistillationSettings,
    EvaluationSettings as EvaluationSettings,
    ExpertSettings as ExpertSettings,
    ProblemSet as ProblemSet,
    ProblemSettings as ProblemSettings,
    RolloutSettings as RolloutSettings,
    check_distinct as check_distinct,
)
from .trainer import Trainer as Trainer
