"""The page of EAPO-Math-v0 is the class's docstring: on Gymnasium's template, and true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import gymnasium as gym
import pytest

from eapo_env import EAPOMathEnv, Problem, UserError
from website.generated import environment_as_markdown

DOCSTRING = inspect.getdoc(EAPOMathEnv) or ""
TEMPLATE = (
    "Description",
    "Action space",
    "Observation space",
    "Starting state",
    "Rewards",
    "Episode end",
    "Information",
    "Arguments",
    "Reset options",
    "Vector environment",
    "Version history",
)


def section(title: str) -> str:
    return DOCSTRING.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> list[str]:
    rows = re.findall(r"^\| (`.*?`) \|", section(title), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_page_in_the_repository_is_the_docstring() -> None:
    """To write it again: `python -m website.generated > docs/environment.md`."""
    page = Path(__file__).parents[2] / "docs/environment.md"
    assert page.read_text(encoding="utf-8") == environment_as_markdown()


def test_the_sections_are_those_of_gymnasiums_pages() -> None:
    assert tuple(re.findall(r"^## (.+)$", DOCSTRING, re.MULTILINE)) == TEMPLATE


def test_every_key_of_an_info_is_explained() -> None:
    env = gym.make("EAPO-Math-v0")
    assert first_column("Information") == list(env.reset(seed=0)[1])


def test_every_argument_is_explained() -> None:
    explained = re.findall(r"^    (\w+): ", section("Arguments").partition("Raises:")[0], re.M)
    parameters = inspect.signature(EAPOMathEnv).parameters.values()
    assert explained == [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]


def test_every_reset_option_is_explained() -> None:
    env = gym.make("EAPO-Math-v0")
    with pytest.raises(UserError) as error:
        env.reset(options={"nothing": 1})
    options = str(error.value).partition("there are ")[2].partition(";")[0].split(", ")
    assert sorted(first_column("Reset options")) == sorted(options)


@pytest.mark.parametrize(
    ("text", "reward"),
    [(r"\boxed{9}", 1.0), ("#### 9", 1.0), ("Answer: 9", 1.0), (r"\boxed{8}", 0.1)],
)
def test_the_rewards_are_those_of_the_page(text: str, reward: float) -> None:
    env = gym.make("EAPO-Math-v0", problems=[Problem(id="nine", statement="4 + 5", answer="9")])
    env.reset(options={"queries_per_turn": 0})
    assert env.step(text)[1] == reward
