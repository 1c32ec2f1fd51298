from .base_models import Base as Base, CopyExperts as CopyExperts
from .experiments import cells_of as cells_of
from .jobs import (
    ENDED as ENDED,
    Job as Job,
    check_at_once as check_at_once,
    make_bases as make_bases,
    open_jobs as open_jobs,
    run_jobs as run_jobs,
)
from .pretraining import Pretraining as Pretraining
from .report import write_report as write_report
