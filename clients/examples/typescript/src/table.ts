import { familyOf, familyText, keyText } from "./client.js";
import type { Route, RouteChange } from "./gen/pointsman/v1/route.js";
import type { Traffic } from "./gen/pointsman/v1/traffic.js";
import type { Step } from "./protocol.js";
import { type Choice, choose } from "./selection.js";

/** The routes of a tenant, service and env by their versions, and the traffic; undefined if none is set. */
interface Family {
  routes: Map<string, Route>;
  traffic?: Traffic | undefined;
}

/** The table does not have all traffic, because the server is older: ask it, by `Client.select`. */
export class TrafficUnknown extends Error {
  override readonly name = "TrafficUnknown";
}

/** The routes and the traffic of a watch. A Watcher writes it. */
export class Table {
  readonly #now: () => number;
  #families = new Map<string, Family>();
  #hasTraffic = false;
  #currentAt: number | undefined;

  /** `now`: milliseconds of a clock that is not set back. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** How many routes there are, live or not. */
  get size(): number {
    return [...this.#families.values()].reduce((sum, family) => sum + family.routes.size, 0);
  }

  /**
   * How many seconds ago the table was known to have everything; undefined before the first checkpoint. Decide what to
   * do when it exceeds a bound: call the server, serve what there is, or fail.
   */
  get ageSeconds(): number | undefined {
    return this.#currentAt === undefined ? undefined : (this.#now() - this.#currentAt) / 1000;
  }

  /** Whether the table has all traffic. */
  get hasTraffic(): boolean {
    return this.#hasTraffic;
  }

  /** Return the live route of a key; undefined where there is none. */
  resolve(key: string): Route | undefined {
    const [family, version] = familyOf(key);
    const route = this.#families.get(family)?.routes.get(version);
    return route?.active ? route : undefined;
  }

  /**
   * Return the route of a family, `tenant/service/env`, for a caller, and why it is that. A sticky key keeps a caller at
   * its version; an empty one stands for a version at random, by the weights. Throws NothingChosen and TrafficUnknown.
   */
  select(name: string, stickyKey = ""): { route: Route; choice: Choice } {
    if (!this.#hasTraffic) {
      throw new TrafficUnknown("the traffic is not known here");
    }
    const family = this.#families.get(name);
    const live = new Map([...(family?.routes ?? [])].filter(([, route]) => route.active));
    const choice = choose(name, family?.traffic, new Set(live.keys()), stickyKey);
    return { route: live.get(choice.version) as Route, choice };
  }

  /** The live routes, by their keys. */
  *live(): Generator<[string, Route]> {
    for (const { routes } of this.#families.values()) {
      for (const route of routes.values()) {
        if (route.active) {
          yield [keyText(route.key), route];
        }
      }
    }
  }

  /** The traffic, by its families. */
  *divided(): Generator<[string, Traffic]> {
    for (const [name, { traffic }] of this.#families) {
      if (traffic) {
        yield [name, traffic];
      }
    }
  }

  /**
   * Do what an event asks for. Nothing else runs meanwhile, so readers see all of it or nothing. `hasTraffic`: whether
   * the table has all traffic from now on, as the protocol says.
   */
  write(step: Step, hasTraffic: boolean): void {
    this.#hasTraffic = hasTraffic;
    switch (step.kind) {
      case "replace":
        this.#families = new Map();
        for (const route of step.routes) {
          this.#of(familyText(route.key)).routes.set(route.key?.version ?? "", route);
        }
        for (const traffic of step.traffic) {
          this.#of(familyText(traffic)).traffic = traffic;
        }
        break;
      case "apply":
        step.changes.forEach((change) => this.#apply(change));
        break;
      case "confirm":
        this.#currentAt = this.#now() - step.ageSeconds * 1000;
        break;
    }
  }

  #apply({ key, after, trafficAfter }: RouteChange): void {
    const name = familyText(key);
    const family = this.#of(name);
    const version = key?.version ?? "";
    if (version === "") {
      family.traffic = trafficAfter;
    } else if (after) {
      family.routes.set(version, after);
    } else {
      family.routes.delete(version);
    }
    if (family.routes.size === 0 && !family.traffic) {
      this.#families.delete(name);
    }
  }

  /** Return a family; a new one where the table has none. */
  #of(name: string): Family {
    const found = this.#families.get(name) ?? { routes: new Map() };
    this.#families.set(name, found);
    return found;
  }
}
