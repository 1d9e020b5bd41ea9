"""What providers' APIs take of what their format can say, which depends on the model.

Each function takes the name of a model and its options. Names are looked at without the
vendor that some providers put before them (``openai/gpt-5-mini``), and a name that is
not known gets what most models take.
"""

from __future__ import annotations

import re

from kongai.llm.formats import Dialect
from kongai.providers.options import Options

# https://platform.openai.com/docs/guides/reasoning: `max_tokens` is refused by these
# models, and so are `temperature`, `top_p` and `stop`. `gpt-5-chat` is none of them.
_REASONING = re.compile(r"(?:o\d(?!\w)|gpt-(?:5(?!-chat)|[6-9])(?!\d))")
# "Function tools with reasoning_effort are not supported for gpt-5.4 in
# /v1/chat/completions": openai-openapi#541 and dotnet/extensions#7407; crush#2913 for
# gpt-5.5. From gpt-5.6 on the effort must be "none" in so many words (litellm#34569).
_NO_TOOLS_WITH_REASONING = re.compile(r"gpt-(?:5\.(?:[4-9]|\d\d)|[6-9])(?!\d)")
_GPT_OSS = re.compile(r"(?:databricks-)?gpt-oss")
_CLAUDE = re.compile(r"claude-[a-z]+-(\d+)(?:[-.](\d{1,2})(?!\d))?(?!\d)")
# https://platform.claude.com/docs/en/build-with-claude/extended-thinking: models before
# Claude 3.7 know no `thinking`. Their names have the version before the kind.
_CLAUDE_BEFORE_THINKING = re.compile(r"claude-(?:instant|[12]|3(?![-.]7))(?!\d)")
_ONE_SAMPLER, _NO_SAMPLING = (4, 1), (4, 7)
_USAGE_IN_STREAM = "2024-09-01"


def openai(model: str, options: Options) -> Dialect:
    """OpenAI's own API."""
    plain = _plain(model)
    if _REASONING.match(plain):
        return Dialect(
            max_tokens="max_completion_tokens",
            sampling=False,
            reasoning="effort",
            tools_with_reasoning=not _NO_TOOLS_WITH_REASONING.match(plain),
        )
    return compatible(model, options)


def compatible(model: str, options: Options) -> Dialect:
    """An API of OpenAI's format of which nothing else is known."""
    # The card of gpt-oss: it is told how much to think by the same word everywhere.
    return Dialect(reasoning="effort" if _GPT_OSS.match(_plain(model)) else None)


def azure(model: str, options: Options) -> Dialect:
    """OpenAI's models at Azure, where the deployment says which model it is."""
    dialect = openai(model, options)
    if _REASONING.match(_plain(options.azure_deployment_id or "")):
        dialect = openai(options.azure_deployment_id or "", options)
    # Before, `stream_options` is an unknown argument: azure-rest-api-specs#29157 and
    # #30810; versions are dates, and those that are words are later ones.
    return dialect._replace(stream_usage=options.azure_api_version >= _USAGE_IN_STREAM)


def mistral(model: str, options: Options) -> Dialect:
    """Mistral's API."""
    # It refuses members that it does not know ("Extra inputs are not permitted"), and
    # ids of calls of any other length (langchain#24668). Its streams tell their usage
    # without being asked: https://docs.mistral.ai/api/#tag/chat, which has no `user`.
    # "Unexpected role 'user' after role 'tool'": zed#37021, avante.nvim#2695.
    return Dialect(
        short_call_ids=True, stream_usage=False, user=False, user_after_tool=False
    )


def deepseek(model: str, options: Options) -> Dialect:
    """DeepSeek's API."""
    # https://api-docs.deepseek.com/guides/thinking_mode: within a turn that calls
    # tools, what was thought has to be sent back. Contents are strings.
    return Dialect(past_reasoning="reasoning_content", plain_text=True)


def vllm(model: str, options: Options) -> Dialect:
    """A vLLM server."""
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: `top_k` is
    # one of its own sampling parameters.
    return compatible(model, options)._replace(
        past_reasoning="reasoning_content", top_k=True
    )


def cerebras(model: str, options: Options) -> Dialect:
    """Cerebras' API."""
    # https://inference-docs.cerebras.ai/capabilities/reasoning: `reasoning` of earlier
    # turns goes back under that name.
    return compatible(model, options)._replace(
        past_reasoning="reasoning", plain_text=True
    )


def openrouter(model: str, options: Options) -> Dialect:
    """OpenRouter, which passes on what the model's provider takes."""
    # https://openrouter.ai/docs: guides on reasoning tokens and on prompt caching.
    return Dialect(
        top_k=True,
        cache_points=True,
        past_reasoning="reasoning",
        reasoning="openrouter",
    )


def xai(model: str, options: Options) -> Dialect:
    """xAI's API."""
    # https://docs.x.ai/docs/guides/reasoning: `reasoning_effort` is an error with any
    # model but the small ones, and `stop` with those that reason: grok-3-mini and all
    # since grok-4 but the ones that are named otherwise (litellm#12635, opencodex#5278,
    # smolagents#1765). The name grok-3 has come to mean one of these (langchain#38335).
    plain = _plain(model)
    return Dialect(
        reasoning="effort" if "mini" in plain else None, stop="non-reasoning" in plain
    )


def anthropic(model: str, options: Options) -> Dialect:
    """Anthropic's API."""
    plain, found = _plain(model), _CLAUDE.search(_plain(model))
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    # https://platform.claude.com/docs/en/about-claude/models/migration-guide: from
    # Opus 4.7 on sampling parameters are refused, and so is a budget for thinking; from
    # Opus 4.1 on, `temperature` and `top_p` are refused together.
    thinks = not _CLAUDE_BEFORE_THINKING.search(plain)
    modern = version >= _NO_SAMPLING or "fable" in plain or "mythos" in plain
    return Dialect(
        default_max_tokens=4096,
        sampling=not modern,
        top_k=not modern,
        one_sampler=version >= _ONE_SAMPLER,
        reasoning=("adaptive" if modern else "budget") if thinks else None,
        cache_points=True,
        longest_tool_name=128,
    )


def ollama(model: str, options: Options) -> Dialect:
    """Ollama's own API."""
    # https://docs.ollama.com/api: `options.top_k`, and contents that are strings.
    return Dialect(top_k=True, plain_text=True)


def _plain(model: str) -> str:
    return model.rpartition("/")[2].lower()
