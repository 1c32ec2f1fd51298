from .characters import char_tokenizer as char_tokenizer
from .chat import (
    Chat as Chat,
    TokenHistory as TokenHistory,
    cut_tokens as cut_tokens,
    plain_ids as plain_ids,
)
from .chat_model import ChatModel as ChatModel, ChatTurn as ChatTurn, PolicyChat as PolicyChat
from .engines import Engine as Engine, HFEngine as HFEngine, PythonEngine as PythonEngine
from .gguf_import import ImportedModel as ImportedModel, import_gguf as import_gguf
from .huggingface import (
    HFPolicy as HFPolicy,
    attention_window as attention_window,
    usable_positions as usable_positions,
)
from .linear import with_fast_linears as with_fast_linears
from .models import (
    EMBEDDED as EMBEDDED,
    SHIPPED as SHIPPED,
    WRONG_BELIEF as WRONG_BELIEF,
    LoRASettings as LoRASettings,
    ModelSettings as ModelSettings,
    cache_argument as cache_argument,
    end_ids as end_ids,
    is_character_level as is_character_level,
    load_model as load_model,
    model_folder as model_folder,
    outline_model as outline_model,
    reasoning_parser as reasoning_parser,
    recompute_activations as recompute_activations,
)
from .openai import (
    OpenAIEngine as OpenAIEngine,
    OpenAIPolicy as OpenAIPolicy,
    read_turn as read_turn,
    truncation_fields as truncation_fields,
)
from .policy import (
    NO_TRUNCATION as NO_TRUNCATION,
    Completion as Completion,
    Finish as Finish,
    Policy as Policy,
    PolicyError as PolicyError,
    Sampler as Sampler,
    Sampling as Sampling,
    Truncation as Truncation,
    completion_limit as completion_limit,
    replica_of as replica_of,
    replicas as replicas,
)
from .vllm import VLLMEngine as VLLMEngine, VLLMPolicy as VLLMPolicy
from .vllm_server import VLLMServerEngine as VLLMServerEngine, VLLMServerPolicy as VLLMServerPolicy
