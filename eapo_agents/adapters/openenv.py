"""[edge] `EAPO-Math-v0` behind OpenEnv's wire format (0.10): server, client and their messages.

The policy is the client's; problems, gold answers, experts and their keys stay on the server. A
client passes the rules of its training step to `reset`. All sessions share one event loop, so their
experts overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import (
    Action,
    ConcurrencyConfig,
    EnvironmentMetadata,
    Observation,
    State,
)

from eapo_agents.training import TrainConfig, prompts_of, without
from eapo_env import EAPOMathEnv
from eapo_env.env import Info
from eapo_env.experts import ExpertPool
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader

if TYPE_CHECKING:
    from fastapi import FastAPI

_PLACE = ("split", "index")
_RULES = ("turn_budget", "acceptance_rate", "queries_per_turn")
_OPTIONS = (*_PLACE, "problem_id", "gate_seed", *_RULES)
"""What a client may choose at a reset; a problem of its own is not among them."""


class EapoAction(Action):
    """One completion of the policy, which answers, consults, or is malformed."""

    completion: str


class EapoObservation(Observation):
    """What the environment wrote since the last action, and how the episode stands.

    The fields are those of `EAPOMathEnv`'s info.
    """

    text: str
    problem_id: str
    turn: int
    turns_left: int
    queries: int
    accepted: int
    correct: bool
    score: float
    verdict: str | None
    stop_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedParts:
    """What the sessions of a server share.

    Args:
        config: the wording, the reward and the rules of a reset without any: those of step 1.
        splits: the problems by split; the first one's are drawn where a reset names none.
        experts: the pool that is consulted.
        verifier: the grader.
    """

    config: TrainConfig
    splits: Mapping[str, Sequence[Problem]]
    experts: ExpertPool
    verifier: Grader

    @classmethod
    def from_config(cls, config: TrainConfig) -> ServedParts:
        """Return what a config describes.

        Raises:
            UserError: a bad setting, servers that are not there, problems that cannot be read, or
                none to train on that is not held out.
        """
        config.experts.check()
        held_out = config.evaluation.problems.load()
        return cls(
            config=config,
            splits={"train": without(held_out, config.problems.load()), "held_out": held_out},
            experts=config.experts.build(),
            verifier=config.verifier.build(),
        )

    @property
    def rules(self) -> Rules:
        """The rules of the first training step."""
        return self.config.schedule.rules_at(1)

    def environment(self) -> EAPOMathEnv:
        """Return the environment of one session."""
        return EAPOMathEnv(
            problems=next(iter(self.splits.values())),
            experts=self.experts,
            rules=self.rules,
            reward=self.config.reward.build(),
            verifier=self.verifier,
            observation="delta",
            expert_timeout_s=self.config.experts.batch_timeout_s,
            prompts=prompts_of(self.config),
        )


class EapoEnvironment(Environment[EapoAction, EapoObservation, State]):
    """`EAPO-Math-v0` for one session of an OpenEnv server.

    Args:
        parts: shared by all sessions.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, parts: ServedParts) -> None:
        super().__init__()
        self._parts = parts
        self._env = parts.environment()
        self._episode_id: str | None = None
        self._begun, self._ended = False, False

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **options: Any
    ) -> EapoObservation:
        """Return the first observation of an episode.

        Args:
            seed: as in `EAPOMathEnv.reset`.
            episode_id: what `state` then says.
            options: `problem_id`, or `split` and `index`, or nothing for a random problem of the
                first split; `turn_budget`, `acceptance_rate`, `queries_per_turn`; `gate_seed`.

        Raises:
            UserError: an unknown option, an invalid value, or a session that has ended.
        """
        self._check_open()
        if unknown := sorted(set(options) - set(_OPTIONS)):
            known = ", ".join(("seed", "episode_id", *_OPTIONS))
            raise UserError(f"unknown options of reset {unknown}: there are {known}")
        text, info = self._env.reset(seed=seed, options=self._read(options))
        self._episode_id, self._begun = episode_id, True
        return _observation(text, info)

    async def reset_async(
        self, seed: int | None = None, episode_id: str | None = None, **options: Any
    ) -> EapoObservation:
        """Return what `reset` returns."""
        return self.reset(seed, episode_id, **options)

    def step(
        self, action: EapoAction, timeout_s: float | None = None, **options: Any
    ) -> EapoObservation:
        """Return the observation after one completion.

        Args:
            timeout_s: is ignored: the experts' timeout is the server's.

        Raises:
            ResetNeeded: there is no episode, or it is over.
            UserError: the session has ended.
        """
        self._check_open()
        text, reward, over, _, info = self._env.step(action.completion)
        return _observation(text, info, reward, over)

    async def step_async(
        self, action: EapoAction, timeout_s: float | None = None, **options: Any
    ) -> EapoObservation:
        """Return what `step` returns, without blocking the other sessions."""
        self._check_open()
        text, reward, over, _, info = await self._env.step_async(action.completion)
        return _observation(text, info, reward, over)

    @property
    def state(self) -> State:
        """The episode's id and its number of turns."""
        turns = self._env.episode.turn if self._begun else 0
        return State(episode_id=self._episode_id, step_count=turns)

    def get_metadata(self) -> EnvironmentMetadata:
        """Return what the server says about itself."""
        return EnvironmentMetadata(
            name="EAPO-Math-v0",
            description="Mathematical problems; experts may be consulted, the turn budget shrinks.",
            version="0",
        )

    def close(self) -> None:
        """End the session: it has been idle for too long, or its client has gone."""
        self._ended = True

    # --- OpenEnv's Task API

    def list_splits(self) -> list[str]:
        """Return the names of the splits."""
        return list(self._parts.splits)

    def num_tasks(self, split: str) -> int:
        """Return the number of problems of a split."""
        return len(self._problems(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Return a problem's id and statement, without its answer.

        Raises:
            UserError: no such split.
            IndexError: no such problem.
        """
        return _task(self._problems(split)[index], index)

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the problems in a slice of a split."""
        problems = self._problems(split)
        return [_task(problems[i], i) for i in range(len(problems))[start:stop]]

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Return all problems of a split."""
        return self.get_task_range(split)

    def _check_open(self) -> None:
        if self._ended:
            raise UserError("this session has ended, idle for too long: connect and reset again")

    def _read(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options as `EAPOMathEnv` takes them."""
        place = {name: options[name] for name in _PLACE if options.get(name) is not None}
        rest = {name: options[name] for name in options if name not in (*_PLACE, "problem_id")}
        match place, options.get("problem_id"):
            case {"split": split, "index": int(index)}, None:
                problems = self._problems(split)
                if not 0 <= index < len(problems):
                    raise UserError(f"index must be in [0, {len(problems)}), not {index}")
                return {**rest, "problem": problems[index]}
            case {}, None if not place:
                return rest
            case {}, problem_id if not place:
                return {**rest, "problem": self._problem(problem_id)}
            case _:
                raise UserError(
                    "a problem is chosen by split and index (a whole number), or by problem_id,"
                    f" not by {place | {'problem_id': options.get('problem_id')}}"
                )

    def _problem(self, problem_id: object) -> Problem:
        """Return the problem of an id in any split."""
        every = chain.from_iterable(self._parts.splits.values())
        found = list({one.statement: one for one in every if one.id == problem_id}.values())
        match found:
            case [problem]:
                return problem
            case []:
                raise UserError(f"no problem has the id {problem_id!r:.200}")
            case _:
                raise UserError(
                    f"{len(found)} problems have the id {problem_id!r:.200}: name split and index"
                )

    def _problems(self, split: object) -> Sequence[Problem]:
        if not isinstance(split, str) or split not in self._parts.splits:
            raise UserError(f"split must be one of {self.list_splits()}, not {split!r:.200}")
        return self._parts.splits[split]


def _observation(
    text: str, info: Info, reward: float | None = None, over: bool = False
) -> EapoObservation:
    return EapoObservation.model_validate({"text": text, "reward": reward, "done": over, **info})


def _task(problem: Problem, index: int) -> dict[str, Any]:
    return {"id": problem.id, "index": index, "statement": problem.statement}


def served_app(parts: ServedParts, *, sessions: int, session_timeout_s: float) -> FastAPI:
    """Return the web application of an OpenEnv server.

    Args:
        sessions: the most at a time; further clients are refused.
        session_timeout_s: a session in which nothing happens for so long ends.
    """
    return create_app(
        lambda: EapoEnvironment(parts),
        EapoAction,
        EapoObservation,
        env_name="eapo_math",
        concurrency_config=ConcurrencyConfig(
            max_concurrent_envs=sessions, session_timeout=session_timeout_s
        ),
    )


class EapoClient(EnvClient[EapoAction, EapoObservation, State]):
    """A session on a server of `eapo serve-env`, asynchronous, or `.sync()`.

    It waits ten minutes for an answer and sends no pings, so that experts and long completions may
    take their time; options of OpenEnv's `EnvClient` replace that.
    """

    def __init__(self, base_url: str | None = None, **options: Any) -> None:
        patient = {"message_timeout_s": 600.0, "websocket_ping_interval_s": None}
        super().__init__(base_url, **patient | options)

    def _step_payload(self, action: EapoAction) -> dict[str, Any]:
        return action.model_dump()

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[EapoObservation]:
        reward, done = payload.get("reward"), payload.get("done", False)
        read = EapoObservation.model_validate(
            {**payload["observation"], "reward": reward, "done": done}
        )
        return StepResult(observation=read, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State.model_validate(payload)
