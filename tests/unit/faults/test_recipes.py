"""The change sets of the load: of every kind and size, and valid as requests."""

import random
from collections import Counter

from pointsman.v1 import route_service_pb2 as pb
from tests.faults.traffic.clients import family_of
from tests.faults.traffic.recipes import FAMILIES, beginning, change_set, choose_families, family


def test_families_begin_with_traffic() -> None:
    made = beginning()
    assert len(made) == 4 * FAMILIES
    assert {family_of(each) for each in made} == {family(number) for number in range(FAMILIES)}


def test_change_sets_have_every_mutation_and_sizes_from_2_to_100() -> None:
    dice = random.Random(1)
    sets = [change_set(dice, f"c{number}") for number in range(500)]
    kinds = Counter(each.WhichOneof("mutation") for made in sets for each in made)
    assert set(kinds) == {each.name for each in pb.Mutation.DESCRIPTOR.oneofs_by_name["mutation"].fields}
    sizes = [len(made) for made in sets]
    assert (min(sizes), max(sizes)) == (2, 100)
    assert sum(len({family_of(each) for each in made}) > 1 for made in sets) > 100


def test_families_are_chosen_once_each() -> None:
    assert sorted(choose_families(random.Random(1), FAMILIES)) == list(range(FAMILIES))
