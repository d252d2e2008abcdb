import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Traffic } from "../src/gen/pointsman/v1/traffic.js";
import { choose, NothingChosen, type Rule, words } from "../src/selection.js";

/** The vectors that every implementation of the rule is tested with. */
interface Vectors {
  words: { family: string; sticky_key: string; words: string[] }[];
  cases: {
    name: string;
    family: string;
    traffic: unknown;
    active: string[];
    selections: (
      | { sticky_key: string; version: string; rule: Rule; inactive_versions: string[] }
      | { sticky_key: string; error: NothingChosen["reason"] }
    )[];
  }[];
}

const VECTORS = JSON.parse(readFileSync(new URL("../../selection_vectors.json", import.meta.url), "utf8")) as Vectors;

assert.ok(VECTORS.cases.length > 0 && VECTORS.words.length > 0);

for (const each of VECTORS.words) {
  test(`the words of ${JSON.stringify(each.sticky_key.slice(0, 16))}`, () => {
    const row = words(`${each.family}\n${each.sticky_key}`);
    assert.deepEqual(
      each.words.map(() => String(row.next().value)),
      each.words,
    );
  });
}

for (const each of VECTORS.cases) {
  test(each.name, () => {
    const traffic = each.traffic ? Traffic.fromJSON(each.traffic) : undefined;
    for (const expected of each.selections) {
      const chosen = () => choose(each.family, traffic, new Set(each.active), expected.sticky_key);
      if ("error" in expected) {
        assert.throws(chosen, (error) => error instanceof NothingChosen && error.reason === expected.error);
      } else {
        const { version, rule, inactive_versions: inactiveVersions } = expected;
        assert.deepEqual(chosen(), { version, rule, inactiveVersions });
      }
    }
  });
}

test("without a sticky key the choice is random", () => {
  const traffic = Traffic.fromPartial({
    slices: [
      { version: "v1", size: 5000 },
      { version: "v2", size: 5000 },
    ],
  });
  const seen = new Set<string>();
  for (let number = 0; number < 200; number++) {
    seen.add(choose("team-a/payments/prod", traffic, new Set(["v1", "v2"]), "").version);
  }
  assert.deepEqual([...seen].sort(), ["v1", "v2"]);
});
