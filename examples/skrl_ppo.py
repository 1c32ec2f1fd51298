"""Train a stock PPO or DQN agent of the library skrl to decide when to consult experts.

    python examples/skrl_ppo.py --agent ppo --steps 400

The agent sees seven numbers of an episode and decides how many experts to ask
(`eapo_agents.methods.DecisionVectorEnv`); a scripted solver, wrong in a fifth of its steps, writes
the texts. During training the acceptance rate of replies covers (0, 1). The table printed at the
end shows that the trained agent consults where replies are accepted and answers at once where they
are not: it earns as much as the better of two fixed rules. It takes about a minute on a CPU.

A script of your own needs `ppo`, `dqn`, `train` and `greedy`; `pip install 'eapo[skrl]'`
installs skrl.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

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

from eapo_agents.methods import (
    Decide,
    DecisionVectorEnv,
    DemonstratorWriter,
    ScheduledRules,
    always,
    play,
)
from eapo_agents.methods.decisions import Decisions, Features
from eapo_env import RewardRule, Rules, synthetic_problems
from eapo_env.demonstrator import NoisyDemonstrator

MakeAgent = Callable[[Wrapper], Agent]

NETWORK = [
    {"name": "net", "input": "OBSERVATIONS", "layers": [32, 32], "activations": "tanh"},
]
"""skrl's description of a small network; seven numbers need no larger one."""

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
    """Return skrl's DQN, with exploration that decays over the training."""
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
        discount_factor=0.9,  # at 1, the overestimated value of another turn never decays
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
    """Return an agent trained by skrl's `SequentialTrainer`, reproducibly on a CPU.

    skrl draws from torch's global generator, which is seeded here and restored afterwards.

    Args:
        make_agent: `ppo`, `dqn`, or a custom function.
        env: the training environment; it stays open.
        steps: steps of the vector environment, `num_envs` decisions each.
        seed: of the networks, the sampling and the episodes.
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
            headless=True,  # skrl renders by a method that vector environments no longer have
            disable_progressbar=True,
            close_environment_at_exit=False,
        )
        SequentialTrainer(env=wrapped, agents=agent, cfg=settings).train()
    return agent


def greedy(agent: Agent) -> Decide:
    """Return a trained agent's decision rule: the most probable, or most valued, decision."""
    model = agent.models.get("policy") or agent.models["q_network"]

    def decide(observations: Features) -> Decisions:
        with torch.no_grad():
            inputs = {"observations": torch.as_tensor(observations, device=agent.device)}
            scores, _ = model.compute(inputs, role="")
        decisions: Decisions = scores.argmax(dim=-1).cpu().numpy()
        return decisions

    return decide


def _ready(models: dict[str, Model]) -> dict[str, Model]:
    """Return the models with initialised parameters: skrl's are lazy."""
    for role, model in models.items():
        model.init_state_dict(role=role)
    return models


def make_env(num_envs: int) -> DecisionVectorEnv:
    """Return an environment of procedural problems in which a query costs 0.1."""
    return DecisionVectorEnv(
        num_envs,
        writer=DemonstratorWriter(demonstrator=NoisyDemonstrator(step_error_rate=0.2)),
        problems=[p for size in (1, 2, 3) for p in synthetic_problems(64, brackets=size)],
        reward=RewardRule(consultation_penalty=0.1),
    )


def any_rate(step: int, draw: float) -> Rules:
    """Return rules whose acceptance rate is the draw, at any step."""
    return Rules(acceptance_rate=draw)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an agent, and print what it earns beside two fixed rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", choices=["ppo", "dqn"], default="ppo")
    parser.add_argument("--steps", type=int, default=400, help="of 16 environments each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    env = make_env(16)
    agent = train(
        {"ppo": ppo, "dqn": dqn}[options.agent],
        ScheduledRules(env, any_rate),
        steps=options.steps,
        seed=options.seed,
    )
    rules = {"never consult": always(0), "consult 3, then answer": always(3)}
    rules[f"{options.agent}, {options.steps} steps"] = greedy(agent)
    print("mean reward (queries per episode) at the acceptance rates 1.0, 0.5, 0.0")
    for name, decide in rules.items():
        scores = [play(env, decide, Rules(acceptance_rate=rate)) for rate in (1.0, 0.5, 0.0)]
        cells = "  ".join(f"{score.reward:5.2f} ({score.queries:.1f})" for score in scores)
        print(f"{name:24}{cells}")
    env.close()


if __name__ == "__main__":
    main()
