"""What can be known wrong before a campaign is recorded, a corpus ingested or a weight loaded.

``flows.presets`` has checked the preset by itself; here are the checks that need files: the base model's tokenizer and
configuration, an ingested corpus, the policies that were named.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.presets import Preset
from models.extension import extend
from models.policy import load_config, native_context
from models.policy_files import CONFIG_FILE, tokenizer_files
from storage.corpora import Corpus, open_corpus
from storage.errors import ConfigError
from storage.home import Home
from storage.policies import policy_record
from tasks.recipes import recipe_named, resolved
from tasks.rounds.building import check_base, check_sizes
from tasks.rounds.screeners import screener_of
from tasks.rounds.supply import check_documents, check_supply
from tasks.training.base_policy import BasePolicyConfig, folder_at_hand


def check_start(home: Home, preset: Preset, corpus: str | None = None, screener: str | None = None) -> None:
    """Raises the error that a run of the preset would meet later on, where it can be known now.

    ``corpus`` and ``screener`` stand in for the preset's. Raises ``ConfigError`` for sizes, budget or separator that
    do not fit, ``PolicyError`` for a base model that can't be used, ``InputError`` for a corpus that is not there.
    """
    check_screeners(home, preset, (screener,) if screener else preset.campaign.screeners)
    ready = bool(corpus) or preset.corpus.is_ready_made
    check_fit(home, preset, open_corpus(home, corpus or preset.corpus.name) if ready else None)


def check_fit(home: Home | None, preset: Preset, corpus: Corpus | None) -> list[str]:
    """Checks corpus, base model and settings against each other; returns what could not be checked, a line each.

    Without a corpus its chunks are as large as the preset says. Raises as ``check_start`` does.
    """
    build, options = resolved(preset.build)
    recipe = recipe_named(build.recipe)
    screens, most = recipe.screener != "none", recipe.most_tokens
    chunk_tokens = largest_chunk(preset, corpus)
    unchecked: list[str] = []
    if corpus is None or home is None:
        unchecked.append(f"whether corpus {preset.corpus.name} gives enough: it is not in this home yet")
    elif screens:
        check_supply(home, corpus, build)
    folder = folder_at_hand(preset.policy)
    if folder is None or not (folder / CONFIG_FILE).is_file() or not tokenizer_files(folder):
        unchecked.append(f"separator and vocabulary: the tokenizer of {preset.policy.base} is not on this machine")
        context = (preset.policy.shape or {}).get("max_position_embeddings")
        if screens:
            check_sizes(build, chunk_tokens=chunk_tokens, policy_context=context)
        elif corpus is not None and most is not None:
            unchecked.append(f"whether corpus {preset.corpus.name} gives enough: that takes the tokenizer")
        if isinstance(context, int) and preset.campaign.train:
            _check_length(preset, max(context, preset.training.extension.context))
        return unchecked
    remote = preset.policy.remote_code
    check_base(folder, build, chunk_tokens=chunk_tokens, screens=screens, remote_code=remote)
    if home is not None and corpus is not None and most is not None:
        check_documents(home, corpus, build, options, most, folder, remote_code=remote)
    if preset.campaign.train:
        extended = extend(load_config(folder, remote_code=remote), preset.training.extension)
        _check_length(preset, native_context(extended))
    return unchecked


def largest_chunk(preset: Preset, corpus: Corpus | None) -> int | None:
    """Tokens of the largest chunk: the corpus's, or what its ingest will make; None when that is not known here."""
    if corpus is not None:
        return int(corpus.manifest["chunking"]["max_tokens"])
    chunking = preset.corpus.chunking
    if chunking.max_tokens is not None or preset.corpus.is_ready_made:
        return chunking.max_tokens
    folder = folder_at_hand(BasePolicyConfig(base=chunking.tokenizer))
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return None
    return chunking.fitted(native_context(load_config(folder))).max_tokens


def check_screeners(home: Home, preset: Preset, given: Sequence[str]) -> None:
    """Raises unless the policies that screen are given where the recipe wants them, and are in the home."""
    digests = [policy_record(home, policy).digest for policy in given]
    screener_of(recipe_named(preset.build.recipe), ["base"], 1, preset.build.lag, digests)


def _check_length(preset: Preset, context: int) -> None:
    target = preset.build.assembly.target_tokens
    if target > context:
        raise ConfigError(
            f"a sample has {target} tokens (build.assembly.target_tokens), the trained policy reaches {context}"
            " (training.extension.context).",
            hint="Raise training.extension.context, or lower build.assembly.target_tokens.",
        )
