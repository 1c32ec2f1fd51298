from .base_models import BaseModel as BaseModel, ModelExperts as ModelExperts
from .jobs import (
    ENDED as ENDED,
    Job as Job,
    check_at_once as check_at_once,
    make_base_models as make_base_models,
    open_jobs as open_jobs,
    run_jobs as run_jobs,
)
from .pretraining import Pretraining as Pretraining
from .report import (
    check_study as check_study,
    read_template as read_template,
    write_report as write_report,
)
from .results import read_results as read_results
from .studies import STUDIES as STUDIES
from .study import Study as Study
