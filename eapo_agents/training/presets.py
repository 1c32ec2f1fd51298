"""Presets: functions that return a `TrainConfig`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from eapo_agents.learning import DAPO, LearnerSettings
from eapo_agents.policies import (
    WRONG_BELIEF,
    ModelSettings,
    Truncation,
    VLLMEngine,
    VLLMServerEngine,
    is_character_level,
)
from eapo_agents.rollouts import DynamicSampling, TokenLimits
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.imitation_settings import ColdStartSettings, DistillationSettings
from eapo_agents.training.settings import (
    EvaluationSettings,
    ExpertSettings,
    ProblemSettings,
    RewardSettings,
    RolloutSettings,
)
from eapo_env.annealing import Annealing
from eapo_env.endpoints import Endpoint
from eapo_env.problems import Columns
from eapo_env.validation import UserError

R1_QWEN_7B = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
R1_QWEN_14B = "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"
R1_LLAMA_8B = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
QWEN3_8B = "Qwen/Qwen3-8B"
QWQ_32B = "Qwen/QwQ-32B"
QWEN_0_5B = "Qwen/Qwen2.5-0.5B-Instruct"
SMOLLM2_135M = "HuggingFaceTB/SmolLM2-135M-Instruct"
QWEN_7B = "Qwen/Qwen2.5-7B-Instruct"

_DAPO_RECIPE = DAPO(
    clip_low=0.20,
    clip_high=0.28,
    dual_clip=10.0,
    importance_cap=2.0,
    normalisation="batch",
)


def embedded() -> TrainConfig:
    """Return EAPO on the embedded model and procedural problems: minutes on two CPU cores."""
    return TrainConfig(
        name="embedded",
        steps=80,
        annealing=Annealing(schedule="ours_linear", turn_budget=2),
        problems=ProblemSettings(num_problems=4096, brackets=3),
        rollout=RolloutSettings(
            group_size=8,
            sampling=DynamicSampling(groups_per_step=16, problems_per_round=16, max_rounds=1),
            limits=TokenLimits(max_response_tokens=256, max_reply_tokens=32),
        ),
        reward=RewardSettings(format_reward=0.0),  # as in the results so far
        learner=LearnerSettings(layout="tree", max_batch_tokens=512),
        evaluation=EvaluationSettings(every=20),
    )


def demo() -> TrainConfig:
    """Return EAPO from a model that believes wrongly: `eapo demo`, a few minutes on two CPU cores.

    It adds, subtracts and multiplies with mistakes in what it carries, so that its most likely
    answers are wrong. The experts answer one bracket at a time, where a group of episodes has just
    failed alone; half of their replies are read, by the same draws for all episodes of the group.
    `docs/results.md` has this comparison over seeds.
    """
    config = embedded()
    problems = replace(config.problems, operations=1, carry_rate=1.0)
    return replace(
        config,
        name="eapo",
        steps=100,
        annealing=Annealing(schedule="constant", rate=0.5, turn_budget=2),
        model=ModelSettings(path=WRONG_BELIEF),
        problems=problems,
        experts=ExpertSettings(kind="synthetic-parts"),
        rollout=replace(
            config.rollout, turn_budgets="group", gate_draws="group", help_for="failed_alone"
        ),
        reward=RewardSettings(),
        evaluation=replace(
            config.evaluation,
            problems=replace(config.evaluation.problems, operations=1, carry_rate=1.0),
            every=50,
        ),
    )


def local() -> TrainConfig:
    """Return EAPO for any chat model in a folder or on the hub, in this process: minutes to hours.

    `model.path` names the model; `problems.source` and `evaluation.problems.source` name files of
    problems; `experts` the servers. Until they do, it is SmolLM2-135M-Instruct on the easiest
    procedural problems, with their scripted expert. The limits are short, and the learning rate is
    one at which SmolLM2-135M learned sums; larger models usually take lower ones.
    """
    easy = ProblemSettings(num_problems=512, brackets=1, operations=1)
    return TrainConfig(
        name="local",
        steps=60,
        annealing=Annealing(schedule="ours_linear", turn_budget=2),
        model=ModelSettings(path=SMOLLM2_135M),
        problems=easy,
        rollout=RolloutSettings(
            group_size=8,
            sampling=DynamicSampling(groups_per_step=4, problems_per_round=8, max_rounds=2),
            limits=TokenLimits(
                max_prompt_tokens=1024, max_response_tokens=256, max_reply_tokens=256
            ),
        ),
        learner=LearnerSettings(learning_rate=5e-6),
        evaluation=EvaluationSettings(
            problems=replace(easy, num_problems=64, seed=1),
            samples_per_problem=4,
            every=10,
            baseline="evaluated",
        ),
    )


def smollm2() -> TrainConfig:
    """Return the main claim of the miniature on a real pretrained model, SmolLM2-135M-Instruct.

    It is for a model after a cold start, `eapo cold-start FOLDER --preset smollm2`: one bracket of
    one operation, which it works out rarely but not never alone, in the terse wording: a prompt of
    51 tokens instead of 197. Half of the replies are read, by the same draws for all episodes of a
    group. `docs/real-model.md` has the run.
    """
    config = local()
    return replace(
        config,
        name="smollm2",
        steps=16,
        checkpoint_every=8,
        transcripts_every=4,
        annealing=Annealing(schedule="constant", rate=0.5, turn_budget=2),
        rollout=replace(
            config.rollout,
            wording="terse",
            turn_budgets="group",
            gate_draws="group",
            sampling=DynamicSampling(groups_per_step=4, problems_per_round=4, max_rounds=1),
            limits=TokenLimits(max_response_tokens=64, max_reply_tokens=32),
        ),
        learner=LearnerSettings(
            learning_rate=1e-5, warmup_steps=2, layout="tree", max_batch_tokens=512
        ),
        evaluation=replace(
            config.evaluation,
            problems=replace(config.evaluation.problems, num_problems=32),
            samples_per_problem=32,
            every=0,
            baseline="skipped",
        ),
    )


def for_model(path: str) -> TrainConfig:
    """Return the preset that suits a model's path: `embedded` with its descendants, or `local`."""
    return embedded() if is_character_level(path) else local()


def one_gpu() -> TrainConfig:
    """Return EAPO on one GPU of 80 GB: Qwen2.5-0.5B-Instruct, with an expert of 7B beside it.

    Trains on MATH and evaluates on 500 of its test problems (MATH-500), which this model solves
    in part. The values are our choices, neither tuned nor run on a GPU: one consultation of up to
    three queries, responses of 4,096 tokens, and three times the paper's learning rate, since
    smaller models usually take higher ones. `docs/one-gpu.md` has memory, cost and what to watch.
    """
    experts = ExpertSettings(
        kind="openai",
        endpoints=_on_loopback((QWEN_7B,)),
        extra_body={"max_tokens": 1024},
        batch_timeout_s=900.0,
    )
    return TrainConfig(
        name="one-gpu",
        steps=200,
        annealing=Annealing(schedule="ours_linear", turn_budget=2, queries_per_turn=3),
        model=ModelSettings(path=QWEN_0_5B, dtype="bfloat16"),
        engine=VLLMEngine(gpu_memory_utilization=0.2, max_context_tokens=8704),
        problems=ProblemSettings(
            source="PrimeIntellect/Hendrycks-Math", columns=Columns(statement="question", id=None)
        ),
        experts=experts,
        rollout=RolloutSettings(
            group_size=8,
            sampling=DynamicSampling(groups_per_step=16, problems_per_round=32, max_rounds=4),
            limits=TokenLimits(
                max_prompt_tokens=1024, max_response_tokens=4096, max_reply_tokens=1024
            ),
        ),
        algorithm=_DAPO_RECIPE,
        learner=LearnerSettings(
            learning_rate=3e-6,
            max_batch_tokens=8704,
            precision="bfloat16",
            gradient_checkpointing=True,
        ),
        evaluation=EvaluationSettings(
            problems=ProblemSettings(
                source="HuggingFaceH4/MATH-500", columns=Columns(id="unique_id"), split="test"
            ),
            samples_per_problem=4,
            every=25,
        ),
    )


def r1_distill_qwen_7b() -> TrainConfig:
    """Return EAPO as in Table 1: DeepSeek-R1-Distill-Qwen-7B with three replicas of QwQ-32B.

    Table 5's values; the rest is inferred from the DAPO recipe (`table_5`).
    """
    return table_5("r1-distill-qwen-7b", policy=R1_QWEN_7B, experts=(QWQ_32B,) * 3)


def r1_distill_qwen_14b() -> TrainConfig:
    """Return EAPO with a larger policy (Figure 3), otherwise as `r1_distill_qwen_7b`."""
    return table_5("r1-distill-qwen-14b", policy=R1_QWEN_14B, experts=(QWQ_32B,) * 3)


def qwen3_8b() -> TrainConfig:
    """Return EAPO with Qwen3-8B as the policy (Appendix J), otherwise as `r1_distill_qwen_7b`.

    The appendix names no experts; these are the main experiment's.
    """
    return table_5("qwen3-8b", policy=QWEN3_8B, experts=(QWQ_32B,) * 3)


def sequential_queries() -> TrainConfig:
    """Return EAPO with one query a turn instead of three in parallel (Table 2)."""
    config = replace(r1_distill_qwen_7b(), name="sequential-queries")
    return replace(config, annealing=replace(config.annealing, queries_per_turn=1))


def r1_distill_qwen_14b_experts() -> TrainConfig:
    """Return EAPO with weaker experts: three of DeepSeek-R1-Distill-Qwen-14B (Table 2)."""
    return table_5("r1-14b-experts", policy=R1_QWEN_7B, experts=(R1_QWEN_14B,) * 3)


def r1_distill_qwen_7b_experts() -> TrainConfig:
    """Return EAPO with a homogeneous pool: three copies of the policy's base model (Table 3)."""
    return table_5("r1-7b-experts", policy=R1_QWEN_7B, experts=(R1_QWEN_7B,) * 3)


def deepseek_distill_llama_8b_experts() -> TrainConfig:
    """Return EAPO with a heterogeneous pool: other experts as small as the policy (Table 3).

    The paper says "Llama-8B"; DeepSeek-R1-Distill-Llama-8B is the reasoning model of that size in
    the policy's own family.
    """
    return table_5("llama-8b-experts", policy=R1_QWEN_7B, experts=(R1_LLAMA_8B,) * 3)


def mixed_experts() -> TrainConfig:
    """Return EAPO with the pool 7B+14B+32B of the workflows (Table 6), a server each."""
    experts = (R1_QWEN_7B, R1_QWEN_14B, QWQ_32B)
    return table_5("mixed-experts", policy=R1_QWEN_7B, experts=experts)


def table_5(name: str, *, policy: str, experts: Sequence[str]) -> TrainConfig:
    """Return the paper's training (3.1, Appendix A, Table 5) of a policy with a pool of experts.

    From the paper: response length, batches, learning rate and its warm-up, clip ratios,
    temperature, top-p, top-k, the limit of 2048 prompt tokens, three queries a turn, k = 32. Its
    tensor parallelism is an option of `eapo serve-policy`.

    Inferred from the DAPO recipe, since the paper omits them: group size 16, at most 10 generation
    batches a step, weight decay 0.1, gradient clip 1.0, dual clip 10, the token mean
    over the batch, the algorithm itself. The importance cap 2 is usual with vLLM as the sampler.

    Our choices, where neither says: 200 training steps; a separate vLLM server, beside which
    bfloat16 and checkpointing fit a learner of 7B on two GPUs of 139 GiB. Experts reason for up to
    8,192 tokens: the timeout is 15 minutes for a call and 30 for a consultation, with 256
    concurrent calls per server.

    Args:
        name: the run's name.
        policy: a hub id.
        experts: hub ids, in the order of the query slots. Each model has a server on loopback, the
            first at port 8000, the next at 8001, and so on.
    """
    return TrainConfig(
        name=name,
        steps=200,
        annealing=Annealing(schedule="power", turn_budget=10, queries_per_turn=3),
        model=ModelSettings(path=policy, dtype="bfloat16"),
        engine=VLLMServerEngine(),
        problems=ProblemSettings(source="dapo-math-17k"),
        experts=ExpertSettings(
            kind="openai", endpoints=_on_loopback(experts), batch_timeout_s=1800.0
        ),
        rollout=RolloutSettings(
            group_size=16,
            temperature=1.0,
            truncation=Truncation(top_p=1.0, top_k=-1),
            sampling=DynamicSampling(groups_per_step=32, problems_per_round=96, max_rounds=10),
            limits=TokenLimits(max_response_tokens=20_480),
        ),
        algorithm=_DAPO_RECIPE,
        learner=LearnerSettings(
            learning_rate=1e-6,
            warmup_steps=10,
            weight_decay=0.1,
            max_grad_norm=1.0,
            precision="bfloat16",
            gradient_checkpointing=True,
        ),
        evaluation=EvaluationSettings(
            problems=ProblemSettings(source="aime-2024"), samples_per_problem=32, every=20
        ),
    )


def _on_loopback(experts: Sequence[str]) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(
            base_url=f"http://127.0.0.1:{8000 + n}/v1",
            models=(model,) * experts.count(model),
            max_live_calls=256,
            call_timeout_s=900.0,
        )
        for n, model in enumerate(dict.fromkeys(experts))
    )


def self_exploratory(config: TrainConfig) -> TrainConfig:
    """Return the same training without experts: alone from the first step (paper 3.1)."""
    return replace(
        config,
        name=f"{config.name}-self-exploratory",
        annealing=replace(config.annealing, turn_budget=1),
    )


def distilled(config: TrainConfig, *, lora_rank: int | None = None) -> TrainConfig:
    """Return the distillation of the same experts into the same model (paper 3.1).

    Adapters are those of the config, or of another rank. The paper gives no hyperparameters; the
    learning rate follows the model.
    """
    rank = config.model.lora.rank if lora_rank is None else lora_rank
    return replace(
        config,
        name=f"{config.name}-distilled{'-lora' if rank else ''}",
        model=replace(config.model, lora=replace(config.model.lora, rank=rank)),
        annealing=replace(config.annealing, turn_budget=1),
        distillation=DistillationSettings(),
    )


def cold_started(config: TrainConfig, *, lora_rank: int | None = None) -> TrainConfig:
    """Return the cold start of the same model on the same problems, in the same wording.

    Adapters are those of the config, or of another rank. A few updates on short demonstrations
    teach a format; the learning rate follows the model.
    """
    rank = config.model.lora.rank if lora_rank is None else lora_rank
    return replace(
        config,
        name=f"{config.name}-cold-start",
        steps=16,
        checkpoint_every=16,
        model=replace(config.model, lora=replace(config.model.lora, rank=rank)),
        learner=replace(config.learner, warmup_steps=4),
        evaluation=replace(config.evaluation, every=0, baseline="skipped"),
        distillation=None,
        cold_start=ColdStartSettings(),
    )


def preset_named(name: str) -> TrainConfig:
    """Return the preset of this name.

    Raises:
        UserError: no such preset; the message suggests a similar one and lists all.
    """
    presets = {preset.__name__: preset for preset in PRESETS}
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=1)
        guess = f": did you mean {near[0]!r}?" if near else "."
        raise UserError(f"unknown preset {name!r}{guess} There are {', '.join(presets)}")
    return presets[name]()


PRESETS: Final[tuple[Callable[[], TrainConfig], ...]] = (
    embedded,
    demo,
    local,
    smollm2,
    one_gpu,
    r1_distill_qwen_7b,
    r1_distill_qwen_14b,
    qwen3_8b,
    sequential_queries,
    r1_distill_qwen_14b_experts,
    r1_distill_qwen_7b_experts,
    deepseek_distill_llama_8b_experts,
    mixed_experts,
)
"""The presets of the command line, by name."""
