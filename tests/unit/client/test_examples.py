"""What the examples in other languages share: the service config, and the cases of Watch, held to the Python client."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from pointsman.connection.channels import MAX_ATTEMPTS, service_config
from pointsman.errors import PointsmanError
from pointsman.near_cache.watch.protocol import Apply, Confirm, ProtocolViolation, Replace, WatchProtocol
from pointsman.rpc.statuses import BY_CODE
from pointsman.v1.watch_pb2 import WatchResponse

EXAMPLES = Path(__file__).parents[3] / "clients" / "examples"
CASES = json.loads((EXAMPLES / "watch-cases.json").read_text())


def key_text(key):
    return "/".join(filter(None, (key.tenant, key.service, key.env, key.version)))


def family_text(traffic):
    return f"{traffic.tenant}/{traffic.service}/{traffic.env}"


class Runner:
    """Runs the steps of a case, for one value of the random part of pauses."""

    def __init__(self, random):
        self.protocol = WatchProtocol(lambda route: route, needs_traffic=True, jitter=lambda: random)
        self.table = {}
        self.traffic = {}
        self.error = None
        self.live = False

    def open(self, step):
        token = self.protocol.resume
        resume = {"epoch": token.epoch, "revision": str(token.revision)} if token else None
        assert resume == step["resume"]
        self.protocol.opened(step["at"])

    def receive(self, step):
        self.live = self.protocol.live
        try:
            done = self.protocol.received(ParseDict(step["event"], WatchResponse()), 0)
        except ProtocolViolation as error:
            assert step["step"] == "fail"
            self.error = error
            return
        assert step["step"] == (type(done).__name__.lower() if done else "none")
        self.write(done, step)

    def write(self, done, step):
        if isinstance(done, Replace):
            self.table = {key_text(route.key): route for route in done.routes}
            self.traffic = {family_text(traffic): traffic for traffic in done.traffic or ()}
        if isinstance(done, Apply):
            assert [str(change.revision) for change in done.changes] == step["revisions"]
            for change in done.changes:
                for table, after in ((self.table, "after"), (self.traffic, "traffic_after")):
                    table.pop(key_text(change.key), None)
                    if change.HasField(after):
                        table[key_text(change.key)] = getattr(change, after)
        if isinstance(done, Confirm) and "first" in step:
            assert (not self.live, done.age, done.report_progress) == (
                step["first"],
                step["ageSeconds"],
                step["report"],
            )

    def end(self, step):
        error = self.error if step["code"] == "FAIL" else failure(step)
        self.error = None
        pause = self.protocol.ended(error, step["at"])
        low, high = step["pause"]
        assert low - 1e-9 <= pause <= high + 1e-9
        return pause

    def compare(self, step):
        assert {key: route.url for key, route in self.table.items() if route.active} == step["live"]
        assert self.protocol.has_traffic == step.get("hasTraffic", False)
        if "traffic" in step:
            assert step["traffic"] == {
                family: {target.version: target.weight for target in traffic.targets}
                for family, traffic in self.traffic.items()
            }


def failure(step):
    if step["code"] == "OK":
        return None
    delay = timedelta(seconds=step["retrySeconds"]) if step["retrySeconds"] else None
    kind = next((kind for code, kind in BY_CODE.items() if code.name == step["code"]), PointsmanError)
    return kind(step["code"], reason=step.get("reason", ""), retry_delay=delay)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_cases_of_watch_are_those_of_the_python_client(case):
    pauses = []
    for random in (0.0, 1.0):
        runner = Runner(random)
        pauses.append([getattr(runner, step["do"])(step) for step in case["steps"]])

    assert all(pause is None or pause != other for pause, other in zip(*pauses, strict=True))


def test_the_examples_retry_as_the_python_client_does():
    assert json.loads((EXAMPLES / "service-config.json").read_text()) == json.loads(service_config(MAX_ATTEMPTS))
