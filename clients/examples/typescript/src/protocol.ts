import { status } from "@grpc/grpc-js";

import { PointsmanError, secondsOf } from "./errors.js";
import type { Route, RouteChange } from "./gen/pointsman/v1/route.js";
import type { Traffic } from "./gen/pointsman/v1/traffic.js";
import type {
  ChangeSet,
  Checkpoint,
  EndOfSnapshot,
  ResumeToken,
  SnapshotBatch,
  WatchResponse,
} from "./gen/pointsman/v1/watch.js";

const FIRST_PAUSE_SECONDS = 0.1;
const LONGEST_PAUSE_SECONDS = 5;
/** For errors that another attempt alone does not mend, such as a missing permission. */
const REFUSED_PAUSE_SECONDS = 10;
/** How long a stream must last for the pause after it to be short again. */
const PROVEN_SECONDS = 5;

/** The table is exactly these routes and this traffic: replace all of it at once. */
export interface Replace {
  kind: "replace";
  asOf: ResumeToken;
  routes: Route[];
  traffic: Traffic[];
}

/** These changes were made together: apply all of them at once. */
export interface Apply {
  kind: "apply";
  asOf: ResumeToken;
  changes: RouteChange[];
}

/** Nothing is missing up to `asOf`, and the server knew so `ageSeconds` ago. */
export interface Confirm {
  kind: "confirm";
  asOf: ResumeToken;
  ageSeconds: number;
  reportProgress: boolean;
  /** It is the first one since the stream began or was reset: the table is live from now on. */
  first: boolean;
}

/** What to do with the table after an event. */
export type Step = Replace | Apply | Confirm;

/** The server sent what the protocol rules out: close the stream. */
export class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation";
}

/**
 * The client's side of Watch as a state machine without I/O: events go in, and what to do comes out. The server's
 * documentation has its rules: docs/watch.md.
 *
 * For each stream: `opened`, then `received` for each event, then `ended`, and wait for as long as it returns. Times are
 * seconds of any clock.
 */
export class Protocol {
  readonly #random: () => number;
  /** What the table has; undefined before the first snapshot. */
  #token: ResumeToken | undefined;
  /** Whether the token is void: a snapshot must come. */
  #void = true;
  /** Whether the stream has traffic: an older server sends none. */
  #sendsTraffic = false;
  #hasTraffic = false;
  #staged: Route[] = [];
  #stagedTraffic: Traffic[] = [];
  #stagedAsOf: ResumeToken | undefined;
  #partial: RouteChange[] = [];
  #live = false;
  #openedAt = 0;
  #failures = 0;

  /** `random`: from 0 to 1, to spread the pauses. */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Where the next stream goes on; undefined stands for a snapshot. */
  get resume(): ResumeToken | undefined {
    return this.#void ? undefined : this.#token;
  }

  /** Whether the table has all traffic. If not, the server must be asked for what a caller is to use. */
  get hasTraffic(): boolean {
    return this.#hasTraffic;
  }

  /** Begin a stream that was asked for with `resume`. */
  opened(now: number): void {
    this.#dropUnfinished();
    this.#live = false;
    this.#sendsTraffic = false;
    this.#openedAt = now;
  }

  /** Take an event, and return what to do, if anything. Throws ProtocolViolation. */
  received({ event }: WatchResponse): Step | undefined {
    if (event?.$case === "opened") {
      return this.#begin(event.value.traffic);
    }
    if (!this.#sendsTraffic) {
      this.#hasTraffic = false; // what follows may leave out changes of it
    }
    switch (event?.$case) {
      case "snapshot":
        return this.#batch(event.value);
      case "endOfSnapshot":
        return this.#endOfSnapshot(event.value);
      case "changes":
        return this.#changes(event.value);
      case "checkpoint":
        return this.#checkpoint(event.value);
      case "reset":
        this.#dropUnfinished();
        this.#void = true;
        this.#live = false;
    }
    return undefined; // an event that this client does not know is ignored
  }

  /** End a stream; without an error where the server closed it with OK. Returns how many seconds to pause. */
  ended(error: unknown, now: number): number {
    this.#dropUnfinished();
    this.#live = false;
    if (now - this.#openedAt >= PROVEN_SECONDS) {
      this.#failures = 0;
    }
    const backoff = Math.min(FIRST_PAUSE_SECONDS * 2 ** this.#failures, LONGEST_PAUSE_SECONDS);
    this.#failures++;
    if (!(error instanceof PointsmanError)) {
      return this.#spread(backoff);
    }
    switch (error.code) {
      case status.OUT_OF_RANGE: // what follows the token is not kept
      case status.ABORTED: // the token is of another epoch
        if (!this.#void) {
          this.#void = true;
          return this.#spread(FIRST_PAUSE_SECONDS);
        }
        break;
      case status.UNAUTHENTICATED:
      case status.PERMISSION_DENIED:
      case status.INVALID_ARGUMENT:
      case status.UNIMPLEMENTED:
        return this.#spread(REFUSED_PAUSE_SECONDS);
    }
    return Math.max(this.#spread(backoff), (error.retrySeconds ?? 0) * (1 + this.#random() / 2));
  }

  /** From half of the pause to all of it, so that clients that were cut off together come back one by one. */
  #spread(seconds: number): number {
    return seconds * (1 - this.#random() / 2);
  }

  #begin(sendsTraffic: boolean): undefined {
    this.#sendsTraffic = sendsTraffic;
    if (sendsTraffic && !this.#hasTraffic && !this.#void) {
      this.#void = true;
      throw new ProtocolViolation("the table has no traffic, and this server sends it: a snapshot is needed");
    }
  }

  #dropUnfinished(): void {
    this.#staged = [];
    this.#stagedTraffic = [];
    this.#stagedAsOf = undefined;
    this.#partial = [];
  }

  #batch(batch: SnapshotBatch): undefined {
    this.#stagedAsOf = this.#checkStaged(batch.asOf);
    for (const route of batch.routes) {
      this.#staged.push(route);
    }
    for (const traffic of batch.traffic) {
      this.#stagedTraffic.push(traffic);
    }
  }

  #endOfSnapshot(end: EndOfSnapshot): Replace {
    const asOf = this.#checkStaged(end.asOf);
    if (BigInt(this.#staged.length) !== end.routeCount) {
      throw new ProtocolViolation(`a snapshot of ${end.routeCount} routes arrived with ${this.#staged.length}`);
    }
    if (BigInt(this.#stagedTraffic.length) !== end.trafficCount) {
      throw new ProtocolViolation(`${this.#stagedTraffic.length} of ${end.trafficCount} traffic entries arrived`);
    }
    if (this.#token?.epoch === asOf.epoch && asOf.revision < this.#token.revision) {
      throw new ProtocolViolation("a snapshot is older than the table");
    }
    const routes = this.#staged;
    const traffic = this.#stagedTraffic;
    this.#dropUnfinished();
    this.#token = asOf;
    this.#void = false;
    this.#hasTraffic = this.#sendsTraffic;
    return { kind: "replace", asOf, routes, traffic };
  }

  #checkStaged(asOf = NOWHERE): ResumeToken {
    if (!this.#void) {
      throw new ProtocolViolation("a snapshot came that was not asked for");
    }
    const staged = this.#stagedAsOf ?? asOf;
    if (staged.epoch !== asOf.epoch || staged.revision !== asOf.revision) {
      throw new ProtocolViolation("parts of a snapshot are as of different revisions");
    }
    return asOf;
  }

  #changes(set: ChangeSet): Apply | undefined {
    const token = this.#following();
    for (const change of set.changes) {
      this.#partial.push(change);
    }
    if (set.partial) {
      return undefined;
    }
    const asOf = sameEpoch(set.asOf, token);
    const changes = this.#partial.filter((change) => change.revision > token.revision);
    this.#partial = [];
    if (asOf.revision < token.revision) {
      return undefined; // the table has all of it
    }
    this.#token = asOf;
    return { kind: "apply", asOf, changes };
  }

  #checkpoint(checkpoint: Checkpoint): Confirm {
    const token = this.#following();
    const asOf = sameEpoch(checkpoint.asOf, token);
    if (this.#partial.length > 0) {
      throw new ProtocolViolation("a change set was not completed");
    }
    if (asOf.revision < token.revision) {
      throw new ProtocolViolation("a checkpoint is older than the table");
    }
    const first = !this.#live;
    this.#token = asOf;
    this.#live = true;
    const ageSeconds = Math.max(0, secondsOf(checkpoint.age));
    return { kind: "confirm", asOf, ageSeconds, reportProgress: checkpoint.reportProgress, first };
  }

  /** Return the token from which changes go on. */
  #following(): ResumeToken {
    if (this.#void || !this.#token) {
      throw new ProtocolViolation("changes came before the end of the snapshot");
    }
    return this.#token;
  }
}

const NOWHERE: ResumeToken = { epoch: "", revision: 0n };

function sameEpoch(asOf: ResumeToken = NOWHERE, token: ResumeToken): ResumeToken {
  if (asOf.epoch !== token.epoch) {
    throw new ProtocolViolation("the epoch changed without a reset");
  }
  return asOf;
}
