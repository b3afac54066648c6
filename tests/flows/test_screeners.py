"""Who screens a round of a campaign: the relation is in the manifest, and only the policy it names is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flows.campaign import campaign
from storage.campaigns import Campaign
from storage.errors import PolicyError
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import add_policy, policy_folder, policy_record
from storage.versions import load_manifest
from tasks.audit.checks import audit_version
from tasks.training.handoff import hand_off, policy_trained_on, trainings_between
from tests.campaigns import small_preset, without_pages
from tests.world import World, make_world

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests: campaigns have names of their own and share what they have in common."""
    folder = tmp_path_factory.mktemp("screeners")
    with pytest.MonkeyPatch.context() as patch:
        without_pages(patch)
        yield make_world(Home.open(folder / "home"), folder / "scratch", patch)


@pytest.fixture(scope="module")
def donor(world: World, prefect_server: None) -> Campaign:
    """A campaign of one round, by the method the project is named after."""
    return run(world, "donor", rounds=1)


def run(world: World, name: str, screeners: tuple[str, ...] = (), data_seed: int = 0, **build: Any) -> Campaign:
    """A campaign of the small world with these fields of the build configuration."""
    preset = small_preset(world, name, screeners, **build)
    training = preset.training.model_copy(update={"data_seed": data_seed})
    return campaign(str(world.home.path), preset.model_copy(update={"training": training})).campaign


def manifests(world: World, found: Campaign) -> list[Manifest]:
    return [load_manifest(world.home, record.version) for record in found.rounds]


def policies(world: World, found: Campaign) -> list[str]:
    """The base model and the policy after each round."""
    return [world.policy, *(str(record.next_policy) for record in found.rounds)]


def audited(world: World, found: Campaign) -> None:
    for record in found.rounds:
        report = audit_version(world.home, record.version)
        assert not report.failures, [finding.line for finding in report.failures]


def test_a_round_built_while_the_last_one_trains_is_lagged_and_trained_by_its_own_policy_only(world: World) -> None:
    home = world.home
    found = run(world, "lagged", rounds=2, lag=1)
    first, second = manifests(world, found)
    base, one, two = policies(world, found)
    assert (first.relation, first.lag, first.policy) == ("on-policy", 0, base)
    assert (second.relation, second.lag, second.policy) == ("lagged", 1, base)
    assert (second.parent_policy, second.parent_version, second.previous_version) == (None, None, first.version)
    assert policy_record(home, two).parent == one, "the policy trained on it goes on from the round before"
    assert trainings_between(home, base, two) == 2

    other = policies(world, run(world, "other", rounds=1, lag=1, data_seed=1))[-1]
    assert trainings_between(home, base, other) == trainings_between(home, base, one) == 1
    assert hand_off(home, second.version, one).policy == one
    for refused, why in ((base, "is 0 trainings"), (two, "is 2 trainings"), (other, "not trained on")):
        with pytest.raises(PolicyError, match=why):
            hand_off(home, second.version, refused)
    audited(world, found)


def test_a_base_screened_recipe_falls_further_behind_every_round(world: World) -> None:
    found = run(world, "static", recipe="entropylong", rounds=3)
    known = policies(world, found)
    for number, manifest in enumerate(manifests(world, found)):
        relation = "lagged" if number else "on-policy"
        assert (manifest.relation, manifest.lag, manifest.policy) == (relation, number, known[0])
        assert manifest.parent_policy is None
        assert hand_off(world.home, manifest.version, known[number]).policy == known[number]
        for other in {*known} - {known[number]}:
            with pytest.raises(PolicyError):
                hand_off(world.home, manifest.version, other)
    audited(world, found)


def test_a_given_policy_screens_every_round_and_any_of_its_tokenizer_may_be_trained(
    world: World, donor: Campaign
) -> None:
    late = policies(world, donor)[-1]
    found = run(world, "late", (late,), recipe="static-late", rounds=2)
    for record, manifest in zip(found.rounds, manifests(world, found), strict=True):
        assert (manifest.relation, manifest.lag, manifest.policy, record.policy) == ("given", 0, late, late)
        assert (manifest.parent_policy, manifest.parent_version) in policy_record(world.home, late).origins
        hand_off(world.home, manifest.version, world.policy)
    one, two = (policy_record(world.home, policy) for policy in policies(world, found)[1:])
    assert (one.parent, two.parent) == (world.policy, one.digest)
    audited(world, found)


def test_recipes_with_the_same_round_give_the_same_policy_and_each_keeps_its_own_chain(
    world: World, donor: Campaign
) -> None:
    home = world.home
    yoked = run(world, "yoked", tuple(policies(world, donor)), recipe="yoked", rounds=2)
    versions = {found.rounds[0].version for found in (donor, yoked)}
    assert len(versions) == 2
    (shared,) = {policies(world, found)[1] for found in (donor, yoked)}
    record = policy_record(home, shared)
    assert versions <= {version for parent, version in record.origins if parent == world.policy}
    for version in versions:
        assert policy_trained_on(home, version, world.policy) == shared
    folder, other = policy_folder(home, shared), "a" * 64
    with pytest.raises(PolicyError, match="is known as trained from"):
        add_policy(home, folder, shared, parent=other, trained_on=other, round=1, trained_here=True)
    second = load_manifest(home, yoked.rounds[1].version)
    assert (second.relation, second.policy, second.previous_version) == ("on-policy", shared, yoked.rounds[0].version)
    assert second.parent_version == yoked.rounds[0].version, "whatever else the home holds"
    for found in (donor, yoked):
        audited(world, found)
