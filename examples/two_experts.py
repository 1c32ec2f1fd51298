"""A cold start of your own: word problems in two parts, a question about each of them.

    python examples/two_experts.py MODEL FOLDER --set steps=16 --set cold_start.batch_size=8

`eapo cold-start` demonstrates on procedural problems, or asks one question about the whole. Here
the teacher asks about both parts at once, so that both experts of a pool are asked; works out by
itself what nobody answers; and solves alone. FOLDER gets the problems (`train.jsonl`,
`test.jsonl`) and the run, whose checkpoint `eapo train local` goes on from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eapo_agents import Run, presets, with_settings
from eapo_agents.methods import ImitationStep, cold_start_trainer
from eapo_agents.policies import Chat
from eapo_agents.rollouts import Demonstration, Rollout, encode
from eapo_agents.training import Progress, TrainConfig, fitted_to_model
from eapo_env import Problem, Reply, Rules, act, begin, receive
from eapo_env.actions import Consult, render_consult

TOLD = {
    "plus": "{name} has {a} apples and gets {b} more.",
    "minus": "{name} has {a} apples and eats {b}.",
    "times": "{name} has {a} bags of {b} apples.",
}
SIGNS = {"plus": "+", "minus": "-", "times": "x"}
READ = {
    word: re.compile(text.format(name=r"\w+", a=r"(\d)", b=r"(\d)")) for word, text in TOLD.items()
}


@dataclass(frozen=True)
class Part:
    """What one of the two has: a calculation with two digits."""

    word: str
    a: int
    b: int

    @property
    def value(self) -> int:
        """The result."""
        match self.word:
            case "plus":
                return self.a + self.b
            case "minus":
                return self.a - self.b
            case _:
                return self.a * self.b

    @property
    def question(self) -> str:
        """What an expert is asked."""
        return f"What is {self.a} {self.word} {self.b}?"

    @property
    def worked(self) -> str:
        """The calculation with its result."""
        return f"{self.a} {SIGNS[self.word]} {self.b} = {self.value}"


def random_part(rng: np.random.Generator) -> Part:
    """Return a calculation whose result is not negative."""
    word = list(TOLD)[rng.integers(3)]
    a, b = map(int, rng.integers(2, 10, 2))
    return Part(word, max(a, b), min(a, b)) if word == "minus" else Part(word, a, b)


def statement(parts: Sequence[Part]) -> str:
    """Return the problem in words."""
    told = [
        TOLD[part.word].format(name=name, a=part.a, b=part.b)
        for name, part in zip(("Ann", "Ben"), parts, strict=True)
    ]
    return f"{' '.join(told)} How many apples do they have together?"


def parts_of(text: str) -> list[Part]:
    """Return the parts of a problem, in order."""
    found = [
        (m.start(), Part(word, int(m[1]), int(m[2])))
        for word in READ
        for m in READ[word].finditer(text)
    ]
    return [part for _, part in sorted(found, key=lambda one: one[0])]


def write_problems(path: Path, count: int, rng: np.random.Generator) -> None:
    """Write distinct problems, one a line."""
    drawn: dict[str, int] = {}
    while len(drawn) < count:
        parts = (random_part(rng), random_part(rng))
        drawn[statement(parts)] = sum(part.value for part in parts)
    rows = [json.dumps({"problem": text, "answer": str(value)}) for text, value in drawn.items()]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class AsksAboutBoth:
    """A teacher for `ImitationStep`."""

    config: TrainConfig
    rollout: Rollout
    problems: Sequence[Problem]

    def lessons(self, runner: asyncio.Runner, run: Run, progress: Progress) -> list[Demonstration]:
        """Return a demonstration for each place in a batch of the training."""
        settings = self.config.cold_start
        assert settings is not None
        rng = np.random.default_rng(self.config.seed)
        chosen = rng.integers(len(self.problems), size=self.config.steps * settings.batch_size)
        return [self._lesson(self.problems[int(n)], settings.alone, rng) for n in chosen]

    def _lesson(self, problem: Problem, alone: float, rng: np.random.Generator) -> Demonstration:
        rules = Rules(turn_budget=2, acceptance_rate=float(rng.random()))
        if rng.random() < alone:
            rules = Rules.alone()
        parts, read = parts_of(problem.statement), [False, False]
        episode = begin(problem, rules, self.rollout.prompts)
        if not rules.is_alone:
            asked = render_consult(Consult(tuple(part.question for part in parts)))
            episode = act(episode, f"I ask about both parts.\n{asked}", rng)
            episode = receive(episode, [Reply("expert", part.worked) for part in parts])
            read = list(episode.consultations[-1].accepted)
        lines = [part.worked for part, told in zip(parts, read, strict=True) if not told]
        first, second = (part.value for part in parts)
        lines.append(f"{first} + {second} = {first + second}")
        episode = act(episode, f"{'. '.join(lines)}. \\boxed{{{first + second}}}", rng)
        return encode(episode, Chat(self.rollout.policy.tokenizer))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the problems, and cold-start the model on them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    train, test = (options.folder / f"{name}.jsonl" for name in ("train", "test"))
    write_problems(train, 512, np.random.default_rng(0))
    write_problems(test, 32, np.random.default_rng(1))
    chosen = [
        *(f"model.path={options.model}", f"problems.source={train}"),
        *(f"evaluation.problems.source={test}", *options.set),
    ]
    config = fitted_to_model(with_settings(presets.cold_started(presets.local()), chosen))
    run = Run.create(config, options.folder)
    with closing(cold_start_trainer(config)) as trainer:
        assert isinstance(trainer.step, ImitationStep)
        teacher = AsksAboutBoth(config, trainer.step.rollout, trainer.step.problems)
        replace(trainer, step=replace(trainer.step, teacher=teacher)).train(run)
    print(f"loss {run.metrics[0]['loss']:.2f} at first, {run.metrics[-1]['loss']:.2f} at last")
    print(f"model: {run.checkpoints[-1]}")


if __name__ == "__main__":
    main()
