"""The page of what runs on which engine with which layout: measured, written, and read back.

    PYTHONPATH=tests/shared python -m family_table

measures every family and writes `docs/families.md`. With vLLM installed it measures vLLM's column,
and otherwise leaves that as it is.
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from families import FAMILIES, Family, made

from eapo_agents.learning import Learner, LearnerSettings, SyncProbe, check_layout, check_sampler
from eapo_agents.learning.settings import Layout
from eapo_agents.policies import HFPolicy, ModelSettings, PolicyError, load_model
from eapo_env.validation import UserError

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
HERE = ("hf", *LAYOUTS)
COLUMNS = (*HERE, "vllm")
MEASURED_WITH = "5.19.0"
"""The release of transformers whose table it is."""
WIDE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
"""Heads of 32, which vLLM's kernels for CPUs know."""

IN_VLLM = tuple(
    family
    for family in FAMILIES
    if family.models
    in (
        "Qwen2.5 Instruct", "R1-Distill-Llama", "Qwen3", "Qwen3 MoE", "Llama 3", "SmolLM3",
        "Gemma 2", "gpt-oss",
    )
)  # fmt: skip
"""The families that are tried with vLLM."""

Row = dict[str, str]


def rows() -> dict[str, Row]:
    """Return the page's table: for each family, a word for each column."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == len(COLUMNS) + 2:
            found[cells[0]] = dict(zip(COLUMNS, cells[2:], strict=True))
    return found


def measured(family: Family, folder: Path) -> Row:
    """Return what the check at the start says of a family: engine hf, and each layout."""
    path = str(made(family, folder))
    model, tokenizer = load_model(ModelSettings(path=path, attention=family.attention))

    def learner(layout: Layout = "padded") -> Learner:
        return Learner(model, settings=LearnerSettings(device="cpu", layout=layout))

    def sampled() -> float:
        return asyncio.run(check_sampler(HFPolicy(model, tokenizer), learner(), 1e-3))

    found = {"hf": _works(sampled)}
    for layout in LAYOUTS:
        found[layout] = _works(partial(check_layout, learner(layout)))
    return found


def measured_in_vllm(family: Family, folder: Path) -> str:
    """Return whether vLLM samples from a family, also after new weights were handed over."""
    from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy

    path = made(family, folder, **WIDE, **({"head_dim": 32} if "head_dim" in family.sizes else {}))
    settings = ModelSettings(path=str(path), attention=family.attention)
    try:
        with closing(
            VLLMPolicy(path, VLLMEngine(max_context_tokens=256, dtype="float32"))
        ) as policy:
            model, _ = load_model(settings)
            learner = Learner(model, settings=LearnerSettings(device="cpu"))
            asyncio.run(SyncProbe().check(policy, learner))
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
            policy.load_weights(model.state_dict())
            asyncio.run(SyncProbe().check(policy, learner))
    except PolicyError:
        return "no"
    except UserError as error:
        return "server" if "vllm-server" in str(error) else "no"
    return "yes"


def _works(check: Callable[[], Any]) -> str:
    try:
        check()
    except UserError:
        return "no"
    return "yes"


_HEAD = f"""\
# Families of models

Which families of models run on which engine and with which layout of the learner's batches
(`learner.layout`), measured on tiny models with random weights in the classes of transformers
{MEASURED_WITH}. A combination with "no" is refused before the first step, in one sentence. `hf` is
`engine.kind=hf`; it refuses contexts longer than an attention window, or than the original
positions of LongRoPE. For vLLM, "yes" means in the process and on a server, "server" on a server
only, and "-" not tried.

| family | class in transformers | hf | padded | packed | shared | tree | vLLM |
|---|---|---|---|---|---|---|---|
"""
_TAIL = """
`PYTHONPATH=tests/shared python -m family_table` writes this table; tests check every cell.
"""


def page(table: Mapping[str, Row]) -> str:
    """Return the page with a table."""
    lines = [
        f"| {family.models} | `{family.config}` | "
        + " | ".join(table[family.models][column] for column in COLUMNS)
        + " |\n"
        for family in FAMILIES
    ]
    return _HEAD + "".join(lines) + _TAIL


def main() -> None:
    """Measure and write the page."""
    before = rows() if PAGE.exists() else {}
    has_vllm = importlib.util.find_spec("vllm") is not None
    table = {}
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            row = measured(family, Path(folder) / "model")
            known = before.get(family.models, {}).get("vllm", "-")
            if has_vllm and family in IN_VLLM:
                known = measured_in_vllm(family, Path(folder) / "in-vllm")
        table[family.models] = row | {"vllm": known}
        print(family.models, table[family.models], flush=True)
    PAGE.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
