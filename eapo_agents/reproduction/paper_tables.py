"""The paper's tables and claims in miniature, as far as all studies have the same.

Experiments are named as in a study's `experiments`.
"""

from __future__ import annotations

from eapo_agents.reproduction.study import Claim, PaperTable, TableRow

EAPO_IS_AHEAD = Claim(
    text="EAPO is ahead of self-exploratory RL",
    better="eapo",
    worse="self-exploratory",
    paper_points=4.91,
)
"""The paper's main claim."""

TABLE_1 = PaperTable(
    key="1",
    title="Table 1: methods",
    rows=(
        TableRow(label="base model", experiment="base", paper_score=42.53),
        TableRow(label="self collaboration", experiment="self-collaboration", paper_score=41.83),
        TableRow(label="expert-assisted workflow", experiment="assisted", paper_score=49.39),
        TableRow(label="LeaP", experiment="leap", paper_score=47.08),
        TableRow(label="distillation, all parameters", experiment="distilled", paper_score=35.31),
        TableRow(label="distillation, LoRA", experiment="distilled-lora", paper_score=43.24),
        TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
        TableRow(label="EAPO", experiment="eapo", paper_score=64.07),
    ),
    claims=(
        EAPO_IS_AHEAD,
        Claim(
            text="EAPO is ahead of its base model",
            better="eapo",
            worse="base",
            paper_points=21.54,
        ),
        Claim(
            text="EAPO, alone, is ahead of the base model with experts",
            better="eapo",
            worse="assisted",
            paper_points=14.68,
        ),
        Claim(
            text="EAPO is ahead of LeaP",
            better="eapo",
            worse="leap",
            paper_points=16.99,
        ),
        Claim(
            text="EAPO is ahead of distillation",
            better="eapo",
            worse="distilled",
            paper_points=28.76,
        ),
        Claim(
            text="experts help the base model",
            better="assisted",
            worse="base",
            paper_points=6.86,
        ),
        Claim(
            text="experts help the base model more than copies of itself",
            better="assisted",
            worse="self-collaboration",
            paper_points=7.56,
        ),
        Claim(
            text="experts help the base model more than LeaP",
            better="assisted",
            worse="leap",
            paper_points=2.31,
        ),
        Claim(
            text="LeaP helps the base model",
            better="leap",
            worse="base",
            paper_points=4.55,
        ),
    ),
)

TABLE_2 = PaperTable(
    key="2",
    title="Table 2: queries and experts",
    rows=(
        TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
        TableRow(
            label="EAPO, one query a turn, base *",
            experiment="eapo-one-query",
            paper_score=61.79,
        ),
        TableRow(
            label="EAPO, three queries a turn, base *",
            experiment="eapo-three-queries",
            paper_score=64.07,
        ),
        TableRow(
            label="EAPO, experts wrong at 30%",
            experiment="eapo-weak-experts",
            paper_score=61.55,
        ),
        TableRow(label="EAPO, right experts", experiment="eapo", paper_score=64.07),
    ),
    claims=(
        Claim(
            text="parallel queries are ahead of sequential ones",
            better="eapo-three-queries",
            worse="eapo-one-query",
            paper_points=2.28,
        ),
        Claim(
            text="strong experts are ahead of weak ones",
            better="eapo",
            worse="eapo-weak-experts",
            paper_points=2.52,
        ),
    ),
)

TABLE_3 = PaperTable(
    key="3",
    title="Table 3: homogeneous and heterogeneous pools",
    rows=(
        TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
        TableRow(
            label="EAPO, copies of the base as experts",
            experiment="eapo-copies",
            paper_score=58.85,
        ),
        TableRow(label="EAPO, other experts", experiment="eapo", paper_score=60.66),
    ),
    claims=(
        Claim(
            text="other experts are ahead of copies of the policy",
            better="eapo",
            worse="eapo-copies",
            paper_points=1.81,
        ),
    ),
)

TABLE_E = PaperTable(
    key="E",
    title="Appendix E, Table 8: bad experts, base model",
    rows=(
        TableRow(label="experts wrong at 60%", experiment="assisted-erroneous", paper_score=42.82),
        TableRow(label="meaningless experts", experiment="assisted-meaningless", paper_score=42.92),
        TableRow(label="right experts", experiment="assisted", paper_score=49.39),
    ),
    claims=(
        Claim(
            text="right experts are ahead of erroneous ones",
            better="assisted",
            worse="assisted-erroneous",
            paper_points=6.57,
        ),
        Claim(
            text="right experts are ahead of meaningless ones",
            better="assisted",
            worse="assisted-meaningless",
            paper_points=6.47,
        ),
    ),
)
