"""One training step, rollout and update, beside that of TRL's GRPOTrainer in the same process.

TRL is not a dependency of this project; install it in a separate environment:

    python3 -m venv .venv-trl && .venv-trl/bin/pip install -e ".[train]" "trl==1.16.*"
    OMP_WAIT_POLICY=PASSIVE .venv-trl/bin/python benchmarks/step.py

With `--engine vllm` ours samples with `VLLMPolicy`, and new weights are part of its update; such an
environment is that of docs/vllm.md with `pip install --no-deps "trl==1.16.*"`.

By default 16 problems x 8 samples of exactly 64 ids, one turn, DAPO without a KL term, a fresh
model of a million parameters in float32 on the CPU, or what `--shape` and the others say.
Both sides start from the same weights, read the same prompts and use the same reward, which costs
nothing; ours goes through `Rollout`, so its time includes the environment and the verifier, and
takes its step once with each kind of linear layers (`policies/linear.py`). Steps alternate, so that
other load on the machine affects all alike; on such a machine read the CPU seconds. TRL generates
until it calls its reward function, and updates after that. Medians over the steps; a ratio is our
time over theirs.

With `--memory` it prints the peaks of the update's memory instead, each side alone: the bytes of
all live tensors (`live_bytes.py`), weights, gradients and moments included.

With `--build FOLDER`, the worktree of an earlier build, it then prints what `builds.py` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import builds
import torch
import transformers
from live_bytes import LiveBytes
from shapes import SHAPES, Shape
from transformers import PreTrainedTokenizerBase

from eapo_agents.learning import LAYOUTS, Learner, LearnerSettings
from eapo_agents.policies import (
    Chat,
    HFPolicy,
    VLLMEngine,
    VLLMPolicy,
    char_tokenizer,
)
from eapo_agents.policies.characters import END, START
from eapo_agents.rollouts import Group, Rollout, TokenLimits, Trajectory, derive_seed, gather
from eapo_env.experts import SilentExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.verifier import Verifier

try:
    import trl
    from datasets import Dataset
except ImportError as error:
    raise SystemExit(f'{error}; this benchmark needs: pip install "trl==1.16.*"') from None

LEARNING_RATE = 1e-4
T = TypeVar("T")
RULES, PROMPTS = Rules.alone(), Prompts.terse()


@dataclass(frozen=True, slots=True)
class Seconds:
    """A moment or a duration, in wall-clock seconds and in CPU seconds of this process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Seconds:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


@dataclass(frozen=True, slots=True)
class Peak:
    """Reads the most bytes that tensors had since it was read before."""

    bytes: LiveBytes

    def __call__(self) -> int:
        peak, self.bytes.peak = self.bytes.peak, self.bytes.live
        return peak


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """What was read when a step began, when it had generated and when it ended; its sampled ids."""

    began: T
    generated: T
    ended: T
    sampled: int


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides do: a model of some shape, and how ours learns and samples."""

    shape: Shape
    settings: LearnerSettings
    engine: str
    problems: int
    samples: int
    new_tokens: int

    @property
    def sampled(self) -> int:
        """The ids that a step samples."""
        return self.problems * self.samples * self.new_tokens

    def model(self) -> transformers.PreTrainedModel:
        return self.shape.model()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return a tokenizer whose end of turn has no logit, so that no completion stops early."""
        tokenizer, vocabulary = char_tokenizer(), self.shape.vocabulary
        template = tokenizer.chat_template.replace(START, " ").replace(END, "\n")
        tokenizer.chat_template = template
        tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), vocabulary)])
        tokenizer.add_special_tokens({"eos_token": "<never>"})
        assert tokenizer.eos_token_id == vocabulary
        return tokenizer

    def policy(self, learner: Learner) -> HFPolicy | VLLMPolicy:
        if self.engine == "hf":
            return HFPolicy(learner.model, self.tokenizer())
        with tempfile.TemporaryDirectory() as folder:
            learner.model.save_pretrained(folder)
            self.tokenizer().save_pretrained(folder)
            assert self.settings.precision != "float64"
            settings = VLLMEngine(dtype=self.settings.precision, max_context_tokens=128)
            return VLLMPolicy(folder, settings)


def problems(number: int) -> list[Problem]:
    """Return problems whose prompts are 36 ids long."""
    return [
        Problem(id=str(i), statement=f"What do we get if we add {i + 10} to {99 - i}?", answer="1")
        for i in range(number)
    ]


def reward(token_ids: Sequence[int]) -> float:
    return float(sum(token_ids) % 2)


def our_steps(work: Work, linears: str, read: Callable[[], T]) -> Iterator[Step[T]]:
    """Yield the measured steps; each runs on demand."""
    learner = Learner(work.model(), settings=work.settings)
    builds.set_linears(learner.model, linears)
    policy = work.policy(learner)
    rollout = Rollout(
        policy=policy,
        experts=SilentExperts(),
        verifier=Verifier(),
        prompts=PROMPTS,
        limits=TokenLimits(max_response_tokens=work.new_tokens),
    )
    while True:
        began, groups = read(), list[Group]()
        asyncio.run(play(rollout, work, groups, seed=learner.step))
        generated = read()
        learner.update(groups)
        policy.load_weights(learner.weights())
        sampled = sum(group.num_policy_tokens for group in groups)
        yield Step(began, generated, read(), sampled)


async def play(rollout: Rollout, work: Work, groups: list[Group], *, seed: int) -> None:
    """Append the groups of a step; `asyncio.run` formats a result as text before Python 3.13."""
    for group in await gather(
        rollout.play_group(problem, [RULES] * work.samples, seed=derive_seed(seed, number))
        for number, problem in enumerate(problems(work.problems))
    ):
        groups.append(replace(group, trajectories=tuple(map(scored, group.trajectories))))


def scored(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, reward=reward(trajectory.token_ids[trajectory.mask].tolist()))


class TakingTurns(transformers.TrainerCallback, Generic[T]):  # type: ignore[misc]
    """Measures TRL's steps, with one of each of ours after it."""

    def __init__(self, our_steps: Mapping[str, Iterator[Step[T]]], read: Callable[[], T]) -> None:
        self.theirs: list[Step[T]] = []
        self.ours: dict[str, list[Step[T]]] = {name: [] for name in our_steps}
        self._our_steps = our_steps
        self._read = read
        self._began = self._generated = read()
        self._sampled = 0

    def rewards(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        self._generated = self._read()
        self._sampled = sum(map(len, completion_ids))
        return [reward(token_ids) for token_ids in completion_ids]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = self._read()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        step = Step(self._began, self._generated, self._read(), self._sampled)
        self.theirs.append(step)
        for name, steps in self._our_steps.items():
            self.ours[name].append(next(steps))


def take_turns(
    work: Work, turns: TakingTurns[T], *, num_steps: int, trl_batch: int
) -> TakingTurns[T]:
    """Return what was read at each of the steps, by TRL's trainer and ours in turns."""
    tokenizer = work.tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=work.settings.device == "cpu",
            bf16=work.settings.precision == "bfloat16",
            loss_type="dapo",
            epsilon=0.2,
            epsilon_high=0.28,
            beta=0.0,
            num_generations=work.samples,
            max_completion_length=work.new_tokens,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=trl_batch,
            gradient_accumulation_steps=work.problems * work.samples // trl_batch,
            gradient_checkpointing=False,
            max_steps=num_steps,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = trl.GRPOTrainer(
            model=work.model(),
            reward_funcs=turns.rewards,
            args=settings,
            train_dataset=Dataset.from_list(
                [{"prompt": text} for text in prompts(work, tokenizer)]
            ),
            processing_class=tokenizer,
            callbacks=[turns],
        )
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
    return turns


def prompts(work: Work, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the prompts as texts that TRL tokenises to just what our side reads."""
    chat = Chat(tokenizer)
    texts = []
    for problem in problems(work.problems):
        ids = chat.opening([PROMPTS.opening(problem, RULES)])
        texts.append(tokenizer.decode(ids))
        assert tokenizer(texts[-1])["input_ids"] == ids
        assert len(ids) == 36, len(ids)
    return texts


def print_table(work: Work, ours: Sequence[Step[Seconds]], theirs: Sequence[Step[Seconds]]) -> None:
    phases: dict[str, Callable[[Step[Seconds]], Seconds]] = {
        "generation": lambda step: step.generated - step.began,
        "update": lambda step: step.ended - step.generated,
        "step": lambda step: step.ended - step.began,
    }
    print("| | EAPO s | TRL s | ratio | EAPO CPU s | TRL CPU s | CPU ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, phase in phases.items():
        one, other = (medians(list(map(phase, steps))) for steps in (ours, theirs))
        print(
            f"| {name} | {one.wall:.2f} | {other.wall:.2f} | {one.wall / other.wall:.2f} "
            f"| {one.cpu:.2f} | {other.cpu:.2f} | {one.cpu / other.cpu:.2f} |"
        )
    speeds = [
        work.sampled / medians(list(map(phases["step"], steps))).wall for steps in (ours, theirs)
    ]
    print(f"sampled ids per second of a step: EAPO {speeds[0]:,.0f}, TRL {speeds[1]:,.0f}")


def medians(times: Sequence[Seconds]) -> Seconds:
    wall = statistics.median(time.wall for time in times)
    return Seconds(wall, statistics.median(time.cpu for time in times))


def our_peak(work: Work) -> int:
    """Return the peak bytes of our second update."""
    with LiveBytes() as live:
        *_, last = islice(our_steps(work, "torch", Peak(live)), 2)
    return last.ended


def trl_peak(work: Work, trl_batch: int) -> int:
    """Return the peak bytes of TRL's second update."""
    with LiveBytes() as live:
        turns = TakingTurns({}, Peak(live))
        take_turns(work, turns, num_steps=2, trl_batch=trl_batch)
    return turns.theirs[-1].ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm", type=int, default=2, help="steps before, which do not count")
    parser.add_argument("--layout", choices=LAYOUTS, default="shared", help="of our update")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="our update's micro-batch")
    parser.add_argument("--trl-batch", type=int, default=128, help="theirs, in sequences")
    parser.add_argument("--engine", choices=("hf", "vllm"), default="hf", help="of ours")
    parser.add_argument("--shape", choices=SHAPES, default="1M")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8, help="of each problem")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each sample")
    parser.add_argument("--memory", action="store_true", help="peaks of the update's memory")
    parser.add_argument("--build", type=Path, help="worktree of an earlier build")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    settings = LearnerSettings(
        device=options.device,
        precision=options.precision,
        learning_rate=LEARNING_RATE,
        layout=options.layout,
        max_batch_tokens=options.batch_tokens,
    )
    work = Work(
        SHAPES[options.shape],
        settings,
        options.engine,
        options.problems,
        options.samples,
        options.new_tokens,
    )
    print(f"{builds.processor()}, trl {trl.__version__}")
    print(f"{options.shape}, {options.precision}, {options.device}; ours samples on {work.engine}")
    print(f"ours: {settings.layout}, {settings.max_batch_tokens} tokens; TRL: {options.trl_batch}")
    num_steps = options.warm + options.steps
    if options.memory:
        peaks = our_peak(work), trl_peak(work, options.trl_batch)
        print(f"peak bytes: EAPO {peaks[0]:,}, TRL {peaks[1]:,}, ratio {peaks[0] / peaks[1]:.2f}")
        return
    for threads in options.threads:
        torch.set_num_threads(threads)
        ours_by_layer = {name: our_steps(work, name, Seconds.now) for name in builds.LINEARS}
        turns = TakingTurns(ours_by_layer, Seconds.now)
        take_turns(work, turns, num_steps=num_steps, trl_batch=options.trl_batch)
        for linears, ours in turns.ours.items():
            assert all(step.sampled == work.sampled for step in ours + turns.theirs)
            print(f"\n{threads} threads, our linear layers {linears}:\n")
            print_table(work, ours[options.warm :], turns.theirs[options.warm :])
    if options.build:
        print("\nThe preset embedded, on the threads that OMP_NUM_THREADS says:\n")
        print("\n".join(builds.compare(options.build, options.steps, options.warm)))
    print(f"\n{builds.processor()}")


if __name__ == "__main__":
    main()
