"""Stock agents of the library skrl on the decisions of an episode.

Owns how skrl's own PPO and DQN are put together for `DecisionVectorEnv`, and a training of any
agent of skrl under a seed. Nothing else imports skrl.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from skrl import config
from skrl.agents.torch import Agent, ExperimentCfg
from skrl.agents.torch.dqn import DQN, DQN_CFG
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import Wrapper, wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import Model
from skrl.trainers.torch import SequentialTrainer, SequentialTrainerCfg
from skrl.utils.model_instantiators.torch import categorical_model, deterministic_model

from eapo_agents.methods.decisions import (
    Decide,
    Decisions,
    DecisionVectorEnv,
    Features,
    ScheduledRules,
)

MakeAgent = Callable[[Wrapper], Agent]

NETWORK = [
    {"name": "net", "input": "OBSERVATIONS", "layers": [32, 32], "activations": "tanh"},
]
"""A small network in skrl's words; a table of seven numbers needs no more."""

_SILENT = ExperimentCfg(write_interval=0, checkpoint_interval=0)


def ppo(env: Wrapper) -> Agent:
    """Return skrl's PPO with settings that suit short episodes."""
    spaces = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "device": env.device,
    }
    models = {
        "policy": categorical_model(**spaces, network=NETWORK, output="ACTIONS"),
        "value": deterministic_model(**spaces, network=NETWORK, output="ONE"),
    }
    settings = PPO_CFG(
        rollouts=16,
        learning_epochs=8,
        mini_batches=4,
        learning_rate=5e-3,
        discount_factor=1.0,
        entropy_loss_scale=0.01,
        experiment=_SILENT,
    )
    memory = RandomMemory(memory_size=16, num_envs=env.num_envs, device=env.device)
    return PPO(models=_ready(models), memory=memory, cfg=settings, **spaces)


def dqn(env: Wrapper) -> Agent:
    """Return skrl's DQN; it explores less and less over the training."""
    spaces = {
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "device": env.device,
    }
    models = {
        role: deterministic_model(**spaces, network=NETWORK, output="ACTIONS")
        for role in ("q_network", "target_q_network")
    }
    settings = DQN_CFG(
        learning_rate=3e-3,
        gradient_steps=2,
        batch_size=256,
        discount_factor=0.9,  # at 1, overrated further turns are never tired of
        target_update_interval=20,
        polyak=1.0,
        learning_starts=10,
        exploration_scheduler=lambda step, steps: max(0.05, 1.0 - 2 * step / steps),
        experiment=_SILENT,
    )
    memory = RandomMemory(memory_size=1000, num_envs=env.num_envs, device=env.device)
    return DQN(models=_ready(models), memory=memory, cfg=settings, **spaces)


def train(
    make_agent: MakeAgent, env: DecisionVectorEnv | ScheduledRules, *, steps: int, seed: int = 0
) -> Agent:
    """Return an agent trained by skrl's `SequentialTrainer`; on a CPU the seed decides it.

    skrl draws from torch's global generator: it is seeded here and put back afterwards.

    Args:
        make_agent: `ppo`, `dqn`, or a function of one's own.
        env: what it is trained in; it stays open.
        steps: of the vector environment, `num_envs` decisions each.
        seed: of the networks, of what is sampled, and of the episodes.
    """
    key = config.torch.key
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        env.single_action_space.seed(seed)
        config.torch.key = seed  # with which the wrapper resets the environment
        try:
            wrapped = wrap_env(env, wrapper="gymnasium", verbose=False)
        finally:
            config.torch.key = key
        agent = make_agent(wrapped)
        settings = SequentialTrainerCfg(
            timesteps=steps,
            headless=True,  # skrl renders by a method that vector environments have no more
            disable_progressbar=True,
            close_environment_at_exit=False,
        )
        SequentialTrainer(env=wrapped, agents=agent, cfg=settings).train()
    return agent


def greedy(agent: Agent) -> Decide:
    """Return the likeliest decisions of a trained agent, or those it values most."""
    model = agent.models.get("policy") or agent.models["q_network"]

    def decide(observations: Features) -> Decisions:
        with torch.no_grad():
            inputs = {"observations": torch.as_tensor(observations, device=agent.device)}
            scores, _ = model.compute(inputs, role="")
        decisions: Decisions = scores.argmax(dim=-1).cpu().numpy()
        return decisions

    return decide


def _ready(models: dict[str, Model]) -> dict[str, Model]:
    """Return the models with their parameters made: skrl's are lazy."""
    for role, model in models.items():
        model.init_state_dict(role=role)
    return models
