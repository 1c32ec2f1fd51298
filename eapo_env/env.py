"""EAPO-Math-v0: one episode at a time behind Gymnasium's interface.

The rules of the game are pure functions in `episode.py`; this file adds two random streams, the
reset options, and the waiting for experts and for the verifier. `begin_turn` and `end_turn` are the
halves of `step` before and after the waiting, for a caller that waits for many environments at once
(the vector environment does).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Never, get_args

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from eapo_env.episode import (
    Episode,
    act,
    begin,
    pairs_to_grade,
    queries_to_send,
    receive_replies,
)
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.options import (
    ProblemSource,
    by_id,
    check_choice,
    check_parts,
    problems_of,
    read_options,
    refuse_unknown,
)
from eapo_env.problems import ColumnNames
from eapo_env.prompts import Prompts
from eapo_env.reward import Reward, RewardRule, earned
from eapo_env.spaces import UnicodeText
from eapo_env.synthetic import synthetic_experts
from eapo_env.types import ExpertReply, Gate, Problem, Query, Rules
from eapo_env.validation import UserError, positive
from eapo_env.verifier import Grader, Verdict, Verifier

_LOG = logging.getLogger(__name__)

Observation = Literal["transcript", "delta"]
Info = dict[str, str | int | float | bool | None]
StepResult = tuple[str, float, bool, bool, Info]


@dataclass(frozen=True, slots=True)
class Turn:
    """A step half done: the completion is parsed, experts and verifier are still to be asked.

    Args:
        start: the episode before it.
        episode: the episode after the completion, before any reply.
        queries: what to ask the experts, in this order; often empty.
        pairs: what to ask the verifier: one (response, gold answer), or nothing.
        gate_rng: the gate's generator after the draws for this turn's queries.
    """

    start: Episode
    episode: Episode
    queries: tuple[Query, ...]
    pairs: tuple[tuple[str, str], ...]
    gate_rng: np.random.Generator


class EAPOMathEnv(gym.Env[str, str]):
    r"""A mathematical problem to solve within a turn budget, with experts that may be consulted.

    ## Description
    An episode is one problem. In each turn the agent, usually a language model, writes a text that
    asks up to three experts or answers. Each reply passes a gate with the acceptance rate's
    probability; a refused one reads as unavailable. The environment is that of EAPO (Enhancing
    Policy Optimization with On-Demand Expert Assistance, arXiv 2509.23730): training lowers the
    acceptance rate and the turn budget (`Annealing`), until the agent solves alone.

        env = gym.make("EAPO-Math-v0")
        observation, info = env.reset(seed=7)
        observation, *_ = env.step("<consult><query>What is 18 * 3?</query></consult>")
        observation, reward, terminated, truncated, info = env.step(r"So it is \boxed{54}.")

    ## Action space
    `UnicodeText`, any string: the text of one turn. The first complete `<consult>` block in it is
    the action and ends the turn, also within `<think>`: what follows it is dropped. A text without
    one that gives an answer is graded; any other text is malformed and uses up the turn, and so is
    an answer beside a `<consult>` that asks nothing, or that is opened behind all reasoning and
    never closed. No text raises an error.

    | action | text | what happens |
    |---|---|---|
    | `Consult` | `<consult><query>...</query></consult>`, one query or more | they are answered |
    | `Answer` | `\boxed{...}`, `#### ...` or `Answer: ...` | it is graded; the episode ends |
    | `Malformed` | anything else | the agent reads that it was neither |

    Of the queries of a turn the first `queries_per_turn` are asked.
    `env.unwrapped.episode.actions[-1]` is the action that was read; a `Malformed` one has a
    `reason`. A model is best stopped at `</consult>`; an API that leaves the stop text out, as
    OpenAI's does, needs it appended.

    ## Observation space
    `UnicodeText`: the transcript so far (`observation="transcript"`), each message after a line
    `[user]` or `[assistant]` and before an empty one, or only what the environment wrote since the
    last action (`"delta"`), as in the examples. A reply is
    `<reply query="1" expert="NAME">`, its text and `</reply>`. Where the gate refused it, or none
    came, the text is `No expert is available for this.` and no expert is named. In an expert's
    text, the tags of this grammar are written with `&lt;`, so that no reply can end early. Each
    observation ends with `Turns left: N.`, or in the last turn with `This is your last turn: give
    the final answer in \boxed{}.`; `info["turns_left"]` has the number. At the end of an episode
    `"delta"` is empty.

    As values, `env.unwrapped.episode.consultations[-1]` has the `replies` and whether the gate
    `accepted` each, also where none came, and `env.unwrapped.episode.messages` what a chat model
    reads:
    `[{"role": m.role, "content": m.content} for m in env.unwrapped.episode.messages]`.

    ## Starting state
    A problem, drawn uniformly, in the opening prompt. The prompt says how to consult and how many
    turns there are; with a turn budget of 1 it is the evaluation prompt, without a word of experts.

    A default problem is `a:((32+8)*3) b:((97-9)*3) c:((55*4)*2) a+b+c mod 100`. Its calculator
    knows `+ - *` and brackets, and answers the last expression or number of any text in two digits,
    modulo 100: `(32+8)*3` with `20`, `a:((32+8)*3)` with `a=20`, the problem with `24`, and `7/2`,
    of which it reads the 2, with `02`.

    ## Rewards
    0 until the episode ends, then by default (`RewardRule`) 1 for a correct answer, 0.1 for a wrong
    one in the right format (no turn was malformed), else 0.
    `reward=RewardRule(consultation_penalty=0.1)` takes off 0.1 for each query, refused or not, and
    0.5 at most; a reward can then be negative.

    ## Episode end
    Terminated by an answer, or when the turn budget is used up; a consultation in the last turn is
    not asked. Never truncated, but by a wrapper:
    `gym.make(..., max_episode_steps=3)`.

    ## Information
    The same keys after `reset` and every `step`; `env.unwrapped.episode` is the whole history.

    | key | value |
    |---|---|
    | `problem_id` | of the problem |
    | `turn` | turns taken |
    | `turns_left` | turns that remain of the budget; 0 after the end |
    | `queries` | put to the gate so far |
    | `accepted` | replies read so far: the gate let them pass, and they came |
    | `correct` | whether the answer is right; False before it |
    | `score` | of the answer: 1 or 0, for answers in words F1; 0 before it |
    | `verdict` | a `Status`, such as `correct` or `timeout`; None before an answer is graded |
    | `stop_reason` | `answered` or `turn_budget`; None before the end |

    ## Arguments

    Args:
        problems: `Problem(id="1", statement="What is 6 * 7?", answer="42")` and others like it, a
            source name or a path (`load_problems`); procedural ones by default.
        columns: which columns of a file or data set hold the problems (`Columns`, or a mapping of
            those that differ, as `{"statement": "question"}`); by default `problem`, `answer` and,
            if there is one, `id`.
        experts: the pool that is consulted; by default the calculator of the procedural problems.
            For other problems there is none, which is logged if the rules offer experts.
        rules: what an episode allows, unless the reset options say otherwise.
            `env.unwrapped.rules` may be set at any time and holds from the next reset on.
        reward: what an episode earns. Tokens are unknown here, so `overlong` never applies.
        verifier: the grader, `F1Grader()` for answers in words; one made here is closed with the
            environment.
        observation: `"transcript"`, the whole history, or `"delta"`, what the environment wrote
            since the last action.
        gate: `"pre"` never asks a query that the gate refuses, `"post"` asks all and records the
            replies that it refuses.
        expert_timeout_s: timeout of the experts in a step, and a second more to hand over what they
            have; later replies are unavailable. A pool that blocks is waited for two seconds more.
        prompts: the wording.
        render_mode: None, `"ansi"` (`render` returns the transcript) or `"human"` (it is printed
            as it grows).

    Raises:
        UserError: no problem, two with the same id, or an invalid argument.

    ## Reset options
    `env.reset(options={...})`; they hold for this episode only.

    | option | value |
    |---|---|
    | `problem_id` | the id of one of the environment's problems |
    | `problem` | any `Problem` |
    | `turn_budget` | the most turns, by default that of `rules` (4) |
    | `acceptance_rate` | the probability that a reply is read (1.0) |
    | `queries_per_turn` | the most queries that are asked in a turn (3) |
    | `max_reply_chars` | a longer reply is cut there (16,384) |
    | `gate_seed` | seeds the gate, whose n-th draw decides on the n-th query of the episode |

    ## Vector environment
    `gym.make_vec("EAPO-Math-v0", num_envs=8)` steps all episodes together: the queries of all go to
    the experts as one batch, their answers to the grader as another (`EAPOMathVectorEnv`). It takes
    the arguments above, `autoreset_mode` and `max_episode_steps`. The reset options `problem_ids`
    and `gate_seeds` hold one value for each, so that eight members of a group have one problem and
    the same draws at the gate; `seed` may be a list, and each plays what `gym.make` plays with its
    seed. `render_mode="ansi"` and `render()` show the transcripts.
    `envs.unwrapped.get_attr("episode")` has the episodes as values. With
    `autoreset_mode="SAME_STEP"` those that ended are gone when `step` returns, but for their infos
    in `infos["final_info"]`; with `"DISABLED"` the caller resets them before the next step, by the
    option `reset_mask`.
    `infos[key]` is an array, one entry a sub-environment; `infos["_" + key]` masks the valid ones.
    After a reset with a mask the others' entries are 0 or None: theirs are those of the last step.

    ## Version history
    v0: initial version.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "human"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        *,
        problems: ProblemSource = "synthetic",
        columns: ColumnNames | None = None,
        experts: ExpertPool | None = None,
        rules: Rules | None = None,
        reward: Reward | None = None,
        verifier: Grader | None = None,
        observation: Observation = "transcript",
        gate: Gate = "pre",
        expert_timeout_s: float = 300.0,
        prompts: Prompts | None = None,
        render_mode: str | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, EAPOMathEnv.__init__.__kwdefaults__ or ())
        check_parts(experts=experts, rules=rules, reward=reward, verifier=verifier, prompts=prompts)
        check_choice("observation", observation, get_args(Observation))
        check_choice("gate", gate, get_args(Gate))
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.verifier: Grader = Verifier() if verifier is None else verifier
        self.problems = problems_of(problems, columns, self.verifier)
        self.rules = rules or Rules()
        if experts is None:
            experts = _default_experts(self.problems, self.rules)
        self.experts = experts
        self.reward: Reward = RewardRule() if reward is None else reward
        self.observation = observation
        self.gate: Gate = gate
        self.expert_timeout_s = expert_timeout_s
        positive(self, "expert_timeout_s")
        self.expert_monitor = ExpertMonitor()
        self.prompts = prompts or Prompts()
        self.render_mode = render_mode
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._owns_verifier = verifier is None
        self._by_id = by_id(self.problems)
        self._episode_seeds: np.random.Generator | None = None
        self._gate_rng: np.random.Generator | None = None
        self._episode: Episode | None = None
        self._verdict: Verdict | None = None
        self._num_printed = 0

    @property
    def episode(self) -> Episode:
        """The episode so far, as a value.

        Raises:
            ResetNeeded: nothing has been reset yet.
        """
        if self._episode is None:
            raise ResetNeeded("call reset() first")
        return self._episode

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Return the observation and info of a fresh episode.

        A seed starts two independent random streams, which later resets without a seed continue:
        the problems drawn, and the seeds of the episodes, each of which seeds that episode's gate.
        So a group can share a problem (`problem_id`) and still have independent gates.

        Args:
            seed: restarts both streams; None continues them.
            options: `problem_id` (one of this environment's) or `problem` (any), any field of
                `Rules`, and `gate_seed`, which seeds the gate in the place of the episode's seed:
                episodes with equal gate seeds and actions have equal slots accepted. All of them
                are for this episode only.

        Raises:
            UserError: an unknown option, or an invalid value.
        """
        problem, rules, gate_seed = read_options(options or {}, self.rules, self._by_id)
        super().reset(seed=seed)
        if seed is not None or self._episode_seeds is None:
            self._episode_seeds = np.random.default_rng(self.np_random.integers(2**63))
        problem = problem or self.problems[int(self.np_random.integers(len(self.problems)))]
        episode_seed = int(self._episode_seeds.integers(2**63))
        self._gate_rng = np.random.default_rng(episode_seed if gate_seed is None else gate_seed)
        self._episode = begin(problem, rules, self.prompts, seed=episode_seed)
        self._verdict = None
        self._num_printed = 0
        self._show()
        return self.observe(), self.inform()

    def step(self, action: str) -> StepResult:
        """Return observation, reward, terminated, truncated and info after one completion.

        The reward is 0 until the episode ends. `truncated` is always False: the turn budget is
        part of the game. What the completion says never raises.

        Raises:
            ResetNeeded: there is no episode, or it is over.
            UserError: the action is not a string; the episode stays as it was.
        """
        turn = self.begin_turn(action)
        replies = self.guarded_experts.ask_now(turn.queries) if turn.queries else ()
        verdicts = self.verifier.verify(turn.pairs) if turn.pairs else ()
        return self.end_turn(turn, replies, verdicts)

    async def step_async(self, action: str) -> StepResult:
        """Return what `step` returns, without blocking the event loop.

        Raises:
            RuntimeError: the episode was reset or stepped in the meantime; this turn is lost.
        """
        turn = self.begin_turn(action)
        replies = await self.guarded_experts.ask(turn.queries) if turn.queries else ()
        verdicts = await self.verifier.averify(turn.pairs) if turn.pairs else ()
        return self.end_turn(turn, replies, verdicts)

    def begin_turn(self, action: str) -> Turn:
        """Return the turn that this completion makes; the episode does not change yet.

        Raises:
            ResetNeeded, UserError: as `step`.
        """
        if not isinstance(action, str):
            raise UserError(f"an action must be a string, not {action!r:.200}")
        start = self.episode
        if start.stop_reason is not None:
            raise ResetNeeded(f"the episode is over ({start.stop_reason}): call reset() first")
        assert self._gate_rng is not None, "reset makes the gate's generator with the episode"
        gate_rng = deepcopy(self._gate_rng)
        episode = act(start, action, gate_rng)
        queries, pairs = queries_to_send(episode, self.gate), pairs_to_grade(episode)
        return Turn(start, episode, queries, pairs, gate_rng)

    def end_turn(
        self, turn: Turn, replies: Sequence[ExpertReply], verdicts: Sequence[Verdict]
    ) -> StepResult:
        """Return what `step` returns, given the replies to `turn.queries` and its verdicts.

        Raises:
            RuntimeError: the episode was reset or stepped since the turn began.
            ValueError: more or fewer replies than queries.
        """
        if turn.start is not self._episode:
            raise RuntimeError("the episode was reset or stepped while this turn was under way")
        episode = receive_replies(turn.episode, self.gate, replies)
        self._episode, self._gate_rng = episode, turn.gate_rng
        self._verdict = verdicts[0] if verdicts else None
        self._show()
        over = episode.stop_reason is not None
        score = self._verdict.score if self._verdict else 0.0
        reward = earned(self.reward, episode, score, 0) if over else 0.0
        return self.observe(), reward, over, False, self.inform()

    def observe(self) -> str:
        """Return the current observation."""
        if self.observation == "transcript":
            return self.episode.transcript()
        last = self.episode.messages[-1]
        return last.content if last.role == "user" else ""

    def inform(self) -> Info:
        """Return the current info, a fresh dictionary."""
        episode = self.episode
        return {
            "problem_id": episode.problem.id,
            "turn": episode.turn,
            "turns_left": episode.turns_left,
            "queries": episode.num_queries,
            "accepted": episode.num_accepted,
            "correct": self._correct,
            "score": self._verdict.score if self._verdict else 0.0,
            "verdict": self._verdict.status.value if self._verdict else None,
            "stop_reason": episode.stop_reason.value if episode.stop_reason else None,
        }

    def render(self) -> str | None:
        """Return the transcript for `"ansi"`; print what is new in it for `"human"`."""
        if self.render_mode == "ansi":
            return self._words(0)
        self._show()
        return None

    def close(self) -> None:
        """Stop the verifier, if it was made here."""
        if self._owns_verifier:
            self.verifier.close()

    @property
    def guarded_experts(self) -> GuardedExperts:
        """The experts as a step asks them: within its timeout, and failures are replies."""
        return GuardedExperts(
            inner=self.experts, timeout_s=self.expert_timeout_s, monitor=self.expert_monitor
        )

    @property
    def _correct(self) -> bool:
        return self._verdict is not None and self._verdict.correct

    def _show(self) -> None:
        num_messages = len(self.episode.messages)
        if self.render_mode == "human" and self._num_printed < num_messages:
            print(self._words(self._num_printed), flush=True)
            self._num_printed = num_messages

    def _words(self, start: int) -> str:
        episode = self.episode
        words = episode.transcript(start)
        if episode.stop_reason is None:
            return words
        outcome = self._verdict.status.value if self._verdict else "no answer"
        return f"{words}\n\n[{episode.stop_reason}: {outcome}]"


def _default_experts(problems: Sequence[Problem], rules: Rules) -> ExpertPool:
    if all(problem.source == "synthetic" for problem in problems):
        return synthetic_experts()
    if not rules.is_alone:
        _LOG.warning(
            "the prompt offers experts, and nobody can be asked about these problems: pass"
            " experts=..., or rules=Rules(queries_per_turn=0) for a prompt without them"
        )
    return SilentExperts()
