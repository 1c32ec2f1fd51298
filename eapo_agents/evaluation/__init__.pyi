from .comparison import (
    seeds_difference as seeds_difference,
    seeds_interval as seeds_interval,
    sets_difference as sets_difference,
    student_t_quantile as student_t_quantile,
)
from .evaluator import (
    Evaluator as Evaluator,
    Graded as Graded,
    OnAttempts as OnAttempts,
    Player as Player,
    ProblemResult as ProblemResult,
    Report as Report,
    check_evaluable as check_evaluable,
    evaluate as evaluate,
    evaluate_each as evaluate_each,
)
from .journal import (
    Evaluation as Evaluation,
    Journal as Journal,
    evaluation_in as evaluation_in,
    paired as paired,
    report_in as report_in,
    write_evaluation as write_evaluation,
)
from .metrics import (
    CallRates as CallRates,
    Interval as Interval,
    PairedDifference as PairedDifference,
    bootstrap_interval as bootstrap_interval,
    call_rates as call_rates,
    majority_at_k as majority_at_k,
    mean_at_k as mean_at_k,
    paired_difference as paired_difference,
    pass_at_k as pass_at_k,
    variance as variance,
)
from .sets import evaluate_sets as evaluate_sets
from .tables import (
    Table as Table,
    difference_cells as difference_cells,
    escaped as escaped,
    fenced as fenced,
    first_distinct as first_distinct,
    visible as visible,
)
from .transcripts import (
    EpisodeRow as EpisodeRow,
    episode_row as episode_row,
    two_examples as two_examples,
)
