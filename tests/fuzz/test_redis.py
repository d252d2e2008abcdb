"""With any entries in Redis, and in any order, the scripts do what the model of the protocol does."""

from tests.fuzz.conftest import Fuzz
from tests.fuzz.targets import redis_scripts


def test_the_scripts_do_what_the_model_does(fuzz: Fuzz, redis_url: str) -> None:
    with redis_scripts.rig(redis_url) as rig:
        fuzz("redis_scripts", check=rig.check)
