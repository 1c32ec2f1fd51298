from . import presets as presets
from .build import (
    check_before_loading as check_before_loading,
    check_model as check_model,
    check_plays_ahead as check_plays_ahead,
    check_trains as check_trains,
    evaluate_alone as evaluate_alone,
    policy_of as policy_of,
    probe_of as probe_of,
    strangers as strangers,
    training_policy as training_policy,
)
from .checkpoint import (
    Played as Played,
    Progress as Progress,
    peak_memory_mib as peak_memory_mib,
)
from .config import TrainConfig as TrainConfig, with_settings as with_settings
from .imitation_settings import (
    ColdStartSettings as ColdStartSettings,
    DistillationSettings as DistillationSettings,
)
from .journal_subject import evaluation_subject as evaluation_subject
from .model_defaults import (
    fitted_to_model as fitted_to_model,
    prompts_of as prompts_of,
    wording_of as wording_of,
)
from .parts import Parts as Parts
from .problem_sets import (
    ProblemSet as ProblemSet,
    check_distinct as check_distinct,
    without as without,
)
from .report.page import write_page as write_page
from .report.plots import (
    Bar as Bar,
    bars_figure as bars_figure,
    figure_path as figure_path,
    save_figure as save_figure,
)
from .report.report import report_tables as report_tables, write_report as write_report
from .report.runs import methods_of as methods_of
from .report.viewer import view_server as view_server
from .resumption import (
    RESUMABLE as RESUMABLE,
    changed_settings as changed_settings,
    lengthened as lengthened,
)
from .reward_step import RewardStep as RewardStep
from .run_folder import Run as Run, model_config as model_config, read_evaluation as read_evaluation
from .scheduled_rollout import ScheduledRollout as ScheduledRollout, make_rollout as make_rollout
from .settings import (
    EvaluationSettings as EvaluationSettings,
    ExpertSettings as ExpertSettings,
    ProblemSettings as ProblemSettings,
    RolloutSettings as RolloutSettings,
)
from .signals import interruption as interruption, termination as termination
from .steps import (
    StepResult as StepResult,
    TrainingStep as TrainingStep,
    hand_over as hand_over,
)
from .summary import step_metrics as step_metrics
from .trackers import Tracker as Tracker
from .trainer import OnStep as OnStep, Trainer as Trainer
from .worker import follow as follow, lead as lead, lead_or_follow as lead_or_follow
