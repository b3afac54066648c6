"""Who screens a round, and how that policy stands to the one that is trained on it.

    screener_of(recipe, policies, round, lag, given)       policies[k] is what round k + 1 trains

A round whose samples ask nobody takes the base model's tokenizer: its version is the same whatever is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.digests import short
from storage.errors import ConfigError, PolicyError
from storage.home import Home
from storage.policies import policy_folder
from tasks.rounds.recipe import Recipe, Screener
from tasks.rounds.tables import Standing
from tasks.training.handoff import tokenizer_of, trainings_between


def screener_of(recipe: Recipe, policies: Sequence[str], number: int, lag: int, given: Sequence[str]) -> str:
    """The digest of the policy that screens round ``number`` (from 1).

    ``policies`` are the campaign's so far, the base model first. ``given`` are the policies named for a recipe that
    wants one: one for all rounds, or one per round. Raises ``ConfigError`` when there is none for the round.
    """
    if recipe.screener == "given":
        if not given:
            raise ConfigError(
                f"recipe {recipe.name} is screened by a policy of another campaign, and none is given.",
                hint="policylong build --screener POLICY, or campaign.screeners in the preset.",
            )
        if len(given) not in (1, *range(number, 10_000)):
            raise ConfigError(
                f"campaign.screeners names {len(given)} policies, round {number} has none.",
                hint="Give one policy for all rounds, or one per round.",
            )
        return given[0] if len(given) == 1 else given[number - 1]
    if given:
        raise ConfigError(
            f"recipe {recipe.name} chooses its screener itself ({_MEANING[recipe.screener]}), one is given.",
            hint="Leave out --screener and campaign.screeners, or take recipe static-late or yoked.",
        )
    if recipe.screener != "current":
        return policies[0]
    return policies[max(0, number - 1 - lag)]


_MEANING: dict[Screener, str] = {
    "current": "the policy that is trained",
    "base": "the base model",
    "given": "a given policy",
    "none": "nobody",
}


def check_screener(home: Home, screener: str, trained: str) -> None:
    """Raises ``PolicyError`` unless both policies read the same tokens."""
    if screener == trained:
        return
    screens, learns = (tokenizer_of(policy_folder(home, policy, weights=False)) for policy in (screener, trained))
    if screens != learns:
        raise PolicyError(
            f"policy {short(screener)} screens and {short(trained)} is trained, and their tokenizers differ.",
            hint="Screen with a policy of the same family.",
        )


def standing_of(home: Home, kind: Screener, screener: str, trained: str, previous: str | None) -> Standing:
    """The relation of screener and trained policy, with the number of trainings between them."""
    if kind == "none":
        return Standing("unscreened", 0, previous)
    lag = trainings_between(home, screener, trained)
    if lag is None:
        return Standing("given", 0, previous)
    return Standing("lagged" if lag else "on-policy", lag, previous)
