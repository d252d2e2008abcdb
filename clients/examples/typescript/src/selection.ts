import { createHash, randomUUID } from "node:crypto";

import type { Traffic, TrafficSlice } from "./gen/pointsman/v1/traffic.js";

const POINTS = 10_000n;
/** How many points of a caller are looked at before the word after them decides. */
const MOST_POINTS = 64;
const WORDS_OF_SUM = 4;

/** Why a version was chosen: by the weights, as the first active fallback, or as the only active version. */
export type Rule = "SPLIT" | "FALLBACK" | "ONLY_ACTIVE";

export interface Choice {
  version: string;
  rule: Rule;
  /** The versions before it that are not active, in the order of the rule. */
  inactiveVersions: string[];
}

/** There is nothing to choose: no version is active, or several are and no traffic is set. */
export class NothingChosen extends Error {
  override readonly name = "NothingChosen";
  readonly reason: "NO_ACTIVE_VERSION" | "AMBIGUOUS_VERSION";

  constructor(reason: NothingChosen["reason"]) {
    super(reason === "NO_ACTIVE_VERSION" ? "no version is active" : "several versions are active, and no traffic is set");
    this.reason = reason;
  }
}

/**
 * Choose a version of a family, `tenant/service/env`, by the rule that servers and all clients share: docs/traffic.md has
 * it. `active` are the active versions. An empty sticky key is replaced by a random text. Throws NothingChosen.
 */
export function choose(
  family: string,
  traffic: Traffic | undefined,
  active: ReadonlySet<string>,
  stickyKey: string,
): Choice {
  if (!traffic) {
    const [version, ...others] = active;
    if (version === undefined || others.length > 0) {
      throw new NothingChosen(version === undefined ? "NO_ACTIVE_VERSION" : "AMBIGUOUS_VERSION");
    }
    return { version, rule: "ONLY_ACTIVE", inactiveVersions: [] };
  }
  const slices = traffic.slices.filter((slice) => active.has(slice.version));
  if (slices.length === 0) {
    return fallback(traffic, active);
  }
  const passed = new Set<string>();
  const row = words(`${family}\n${stickyKey || randomUUID()}`);
  const next = () => row.next().value as bigint;
  for (let number = 0; number < MOST_POINTS; number++) {
    const version = owner(traffic.slices, Number(next() % POINTS));
    if (active.has(version)) {
      return { version, rule: "SPLIT", inactiveVersions: [...passed] };
    }
    passed.add(version);
  }
  const count = slices.reduce((sum, slice) => sum + slice.size, 0);
  return { version: owner(slices, Number(next() % BigInt(count))), rule: "SPLIT", inactiveVersions: [...passed] };
}

function fallback(traffic: Traffic, active: ReadonlySet<string>): Choice {
  const passed = new Set(traffic.targets.filter((target) => target.weight > 0).map((target) => target.version));
  for (const version of traffic.fallbacks) {
    if (active.has(version)) {
      return { version, rule: "FALLBACK", inactiveVersions: [...passed] };
    }
    passed.add(version);
  }
  throw new NothingChosen("NO_ACTIVE_VERSION");
}

/** The numbers of a caller: the four of the SHA-256 of the text, then those of the text and "\n1", and so on. */
export function* words(text: string): Generator<bigint, never> {
  for (let block = 0; ; block++) {
    const sum = createHash("sha256")
      .update(block === 0 ? text : `${text}\n${block}`, "utf8")
      .digest();
    for (let place = 0; place < WORDS_OF_SUM; place++) {
      yield sum.readBigUInt64BE(place * 8);
    }
  }
}

/** Return the version of the slice that a point is in. */
function owner(slices: readonly TrafficSlice[], point: number): string {
  let left = point;
  for (const { version, size } of slices) {
    if (left < size) {
      return version;
    }
    left -= size;
  }
  throw new RangeError("the slices do not divide all points");
}
