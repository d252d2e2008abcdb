import { keyText } from "./client.js";
import type { Route } from "./gen/pointsman/v1/route.js";
import type { Step } from "./protocol.js";

/** The routes of a watch. A Watcher writes it. */
export class Table {
  readonly #now: () => number;
  #routes = new Map<string, Route>();
  #currentAt: number | undefined;

  /** `now`: milliseconds of a clock that is not set back. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** How many routes there are, live or not. */
  get size(): number {
    return this.#routes.size;
  }

  /**
   * How many seconds ago the table was known to have everything; undefined before the first checkpoint. Decide what to
   * do when it exceeds a bound: call the server, serve what there is, or fail.
   */
  get ageSeconds(): number | undefined {
    return this.#currentAt === undefined ? undefined : (this.#now() - this.#currentAt) / 1000;
  }

  /** Return the live route of a key; undefined where there is none. */
  resolve(key: string): Route | undefined {
    const route = this.#routes.get(key);
    return route?.active ? route : undefined;
  }

  /** The live routes, by their keys. */
  *live(): Generator<[string, Route]> {
    for (const [key, route] of this.#routes) {
      if (route.active) {
        yield [key, route];
      }
    }
  }

  /** Do what an event asks for. Nothing else runs meanwhile, so readers see all of it or nothing. */
  write(step: Step): void {
    switch (step.kind) {
      case "replace":
        this.#routes = new Map(step.routes.map((route) => [keyText(route.key), route]));
        break;
      case "apply":
        for (const change of step.changes) {
          if (change.after) {
            this.#routes.set(keyText(change.key), change.after);
          } else {
            this.#routes.delete(keyText(change.key));
          }
        }
        break;
      case "confirm":
        this.#currentAt = this.#now() - step.ageSeconds * 1000;
        break;
    }
  }
}
