import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { status } from "@grpc/grpc-js";

import { PointsmanError } from "../src/errors.js";
import { WatchResponse } from "../src/gen/pointsman/v1/watch.js";
import { Protocol, ProtocolViolation, type Step } from "../src/protocol.js";
import { Table } from "../src/table.js";

/** One case of watch-cases.json, which the clients of all languages share. */
interface Case {
  name: string;
  steps: CaseStep[];
}

type CaseStep =
  | { do: "open"; at: number; resume: { epoch: string; revision: string } | null }
  | ({ do: "receive"; event: unknown; step: Step["kind"] | "none" | "fail"; revisions?: string[] } & CaseConfirm)
  | { do: "end"; at: number; code: keyof typeof status | "FAIL"; retrySeconds: number; pause: [number, number] }
  | {
      do: "compare";
      live: Record<string, string>;
      hasTraffic?: boolean;
      traffic?: Record<string, Record<string, number>>;
    };

interface CaseConfirm {
  first?: boolean;
  ageSeconds?: number;
  report?: boolean;
}

const CASES = JSON.parse(readFileSync(new URL("../../watch-cases.json", import.meta.url), "utf8"), duration) as Case[];

/** ts-proto reads a duration as an object, and the JSON of protobuf has it as a text such as "0.250s". */
function duration(name: string, value: unknown): unknown {
  if (name !== "age") {
    return value;
  }
  const [seconds = "0", fraction = ""] = String(value).replace("s", "").split(".");
  return { seconds, nanos: Number(fraction.padEnd(9, "0")) };
}

/** Runs the steps of a case, for one value of the random part of pauses. */
class Runner {
  readonly #random: number;
  readonly #protocol: Protocol;
  readonly #table = new Table();
  #violation: unknown;

  constructor(random: number) {
    this.#random = random;
    this.#protocol = new Protocol(() => random);
  }

  run(step: CaseStep): void {
    switch (step.do) {
      case "open": {
        const token = this.#protocol.resume;
        assert.deepEqual(token ? { epoch: token.epoch, revision: String(token.revision) } : null, step.resume);
        this.#protocol.opened(step.at);
        break;
      }
      case "receive":
        this.#receive(step);
        break;
      case "end": {
        const error = step.code === "FAIL" ? this.#violation : failure(step.code, step.retrySeconds);
        const pause = this.#protocol.ended(error, step.at);
        // Without a random part all of a pause, and with the largest half of it; what a server asks for only grows.
        const asked = step.retrySeconds === step.pause[0];
        const expected = step.pause[(this.#random === 0) === asked ? 0 : 1];
        assert.ok(Math.abs(pause - expected) < 1e-9, `after ${step.code} the pause is ${pause}, not ${expected}`);
        break;
      }
      case "compare":
        assert.deepEqual(
          Object.fromEntries([...this.#table.live()].map(([key, route]) => [key, route.url])),
          step.live,
        );
        if (step.hasTraffic !== undefined) {
          assert.equal(this.#table.hasTraffic, step.hasTraffic);
        }
        if (step.traffic) {
          assert.deepEqual(weights(this.#table), step.traffic);
        }
        break;
    }
  }

  #receive(step: CaseStep & { do: "receive" }): void {
    let done: Step | undefined;
    try {
      done = this.#protocol.received(WatchResponse.fromJSON(step.event));
    } catch (error) {
      assert.ok(error instanceof ProtocolViolation && step.step === "fail", `${error}`);
      this.#violation = error;
      return;
    }
    assert.equal(done?.kind ?? "none", step.step);
    if (done) {
      this.#table.write(done, this.#protocol.hasTraffic);
    }
    if (done?.kind === "apply") {
      assert.deepEqual(
        done.changes.map((change) => String(change.revision)),
        step.revisions,
      );
    }
    if (done?.kind === "confirm" && step.first !== undefined) {
      const { first, ageSeconds, reportProgress: report } = done;
      assert.deepEqual(
        { first, ageSeconds, report },
        { first: step.first, ageSeconds: step.ageSeconds, report: step.report },
      );
    }
  }
}

function weights(table: Table): Record<string, Record<string, number>> {
  const found = [...table.divided()].map(([family, { targets }]) => [
    family,
    Object.fromEntries(targets.map(({ version, weight }) => [version, weight])),
  ]);
  return Object.fromEntries(found);
}

function failure(code: keyof typeof status, retrySeconds: number): PointsmanError | undefined {
  return code === "OK" ? undefined : new PointsmanError(status[code], "", "", {}, [], retrySeconds || undefined);
}

assert.ok(CASES.length > 0);
for (const { name, steps } of CASES) {
  test(name, () => {
    for (const random of [0, 1]) {
      const runner = new Runner(random);
      steps.forEach((step) => runner.run(step));
    }
  });
}
