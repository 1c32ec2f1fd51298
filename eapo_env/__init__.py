"""EAPO-Math-v0: a Gymnasium environment in which a policy may consult experts.

Importing this package registers the environment. `__all__` is its public interface; everything
heavy (the HTTP client, computer algebra, data sets) is imported where it is first used.
"""

from __future__ import annotations

import gymnasium as gym

from eapo_env.acceptance import draw_acceptance
from eapo_env.actions import Action, Answer, Consult, Malformed, parse_action, render_consult
from eapo_env.annealing import Annealing
from eapo_env.answers import extract_answer
from eapo_env.driver import grade, play_episode
from eapo_env.endpoints import Endpoint
from eapo_env.env import EAPOMathEnv, Turn
from eapo_env.episode import (
    Episode,
    act,
    begin,
    pairs_to_grade,
    queries_to_send,
    receive,
    receive_replies,
    take_turn,
    truncate,
)
from eapo_env.experts import (
    ErroneousExperts,
    ExpertPool,
    MeaninglessExperts,
    ScriptedExperts,
    SilentExperts,
)
from eapo_env.f1_grader import F1Grader, f1_score
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.problems import Columns, load_problems
from eapo_env.prompts import Prompts
from eapo_env.recordings import RecordingExperts, ReplayExperts
from eapo_env.reward import Overlong, Reward, RewardRule
from eapo_env.spaces import UnicodeText
from eapo_env.spending import Budget, Price
from eapo_env.synthetic import synthetic_experts, synthetic_problems
from eapo_env.types import (
    NO_ANSWER,
    Consultation,
    ExpertReply,
    Message,
    Problem,
    Query,
    Reply,
    Rules,
    StopReason,
    Unavailable,
    Usage,
)
from eapo_env.validation import UserError
from eapo_env.vector_env import EAPOMathVectorEnv
from eapo_env.verifier import Grader, Status, Verdict, Verifier

__all__ = [
    "NO_ANSWER",
    "Action",
    "Annealing",
    "Answer",
    "Budget",
    "Columns",
    "Consult",
    "Consultation",
    "EAPOMathEnv",
    "EAPOMathVectorEnv",
    "Endpoint",
    "Episode",
    "ErroneousExperts",
    "ExpertMonitor",
    "ExpertPool",
    "ExpertReply",
    "F1Grader",
    "Grader",
    "GuardedExperts",
    "Malformed",
    "MeaninglessExperts",
    "Message",
    "OpenAIExperts",
    "Overlong",
    "Price",
    "Problem",
    "Prompts",
    "Query",
    "RecordingExperts",
    "ReplayExperts",
    "Reply",
    "Reward",
    "RewardRule",
    "Rules",
    "ScriptedExperts",
    "SilentExperts",
    "Status",
    "StopReason",
    "Turn",
    "Unavailable",
    "UnicodeText",
    "Usage",
    "UserError",
    "Verdict",
    "Verifier",
    "act",
    "begin",
    "draw_acceptance",
    "extract_answer",
    "f1_score",
    "grade",
    "load_problems",
    "pairs_to_grade",
    "parse_action",
    "play_episode",
    "queries_to_send",
    "receive",
    "receive_replies",
    "render_consult",
    "synthetic_experts",
    "synthetic_problems",
    "take_turn",
    "truncate",
]

gym.register(
    id="EAPO-Math-v0",
    entry_point="eapo_env.env:EAPOMathEnv",
    vector_entry_point="eapo_env.vector_env:EAPOMathVectorEnv",
)
