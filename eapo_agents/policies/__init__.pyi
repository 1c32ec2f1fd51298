from .characters import char_tokenizer as char_tokenizer
from .chat import (
    Chat as Chat,
    TokenHistory as TokenHistory,
    cut_tokens as cut_tokens,
    plain_ids as plain_ids,
)
from .chat_model import ChatModel as ChatModel, PolicyChat as PolicyChat, Turn as Turn
from .huggingface import HFPolicy as HFPolicy
from .linear import with_fast_linears as with_fast_linears
from .models import (
    EMBEDDED as EMBEDDED,
    ModelSettings as ModelSettings,
    load_model as load_model,
    model_folder as model_folder,
)
from .openai import ApiSettings as ApiSettings, OpenAIPolicy as OpenAIPolicy
from .policy import (
    NO_TRUNCATION as NO_TRUNCATION,
    Completion as Completion,
    Finish as Finish,
    Policy as Policy,
    PolicyError as PolicyError,
    Sampling as Sampling,
    ScriptedPolicy as ScriptedPolicy,
    Truncation as Truncation,
    check_policy as check_policy,
)
from .vllm import VLLMPolicy as VLLMPolicy, VLLMSettings as VLLMSettings
from .vllm_server import PolicyServer as PolicyServer, VLLMServerPolicy as VLLMServerPolicy
