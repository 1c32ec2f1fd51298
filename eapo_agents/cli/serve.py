"""`eapo serve-expert` and `eapo serve-policy`: models behind vLLM servers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from eapo_agents import policies, serving

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


_AFTER = (
    "The replicas take the GPUs that CUDA_VISIBLE_DEVICES names, in its order; without it, those"
    " from GPU 0 on, also if another server or a training is on them. Options of vLLM's own server"
    " follow --, at the end."
)


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_serve_expert(commands)
    _add_serve_policy(commands)


def _add_serve_expert(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve-expert", help="serve an expert model with vLLM", epilog=_AFTER
    )
    serve.add_argument("model", help="a model folder or hub id, with a chat template")
    serve.add_argument("--name", help="under which it is served; default: MODEL")
    serve.add_argument("--replicas", type=int, default=1)
    serve.add_argument("--port", type=int, default=8000, help="of the first replica")
    serve.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs a replica")
    serve.add_argument("--max-model-len", type=int, default=None)
    serve.add_argument("--max-num-seqs", type=int, default=64)
    serve.set_defaults(command=_serve_expert, options=[])


def _add_serve_policy(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve-policy", help="serve the policy with vLLM, for training", epilog=_AFTER
    )
    serve.add_argument("model", help="the model that training starts from")
    serve.add_argument("--replicas", type=int, default=1, help="servers that share the episodes")
    serve.add_argument("--port", type=int, default=8100, help="of the first replica")
    serve.add_argument("--transfer", choices=("file", "nccl"), default="file", help="of weights")
    serve.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    serve.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs a replica")
    serve.add_argument("--max-model-len", type=int, default=None)
    serve.add_argument("--max-num-seqs", type=int, default=256)
    serve.set_defaults(command=_serve_policy, options=[])


def _serve_expert(options: argparse.Namespace) -> int:
    parser = policies.reasoning_parser(options.model)
    given = {"reasoning_parser": parser} | _given(options)
    return serving.serve_expert(serving.ExpertServers(**given))


def _serve_policy(options: argparse.Namespace) -> int:
    model = policies.model_folder(options.model)
    return serving.serve_policy(serving.PolicyServers(**_given(options) | {"model": model}))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "command"}
