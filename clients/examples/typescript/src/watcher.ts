import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { Client } from "./client.js";
import { errorOf } from "./errors.js";
import type { ResumeToken } from "./gen/pointsman/v1/watch.js";
import { Protocol, ProtocolViolation, type Step } from "./protocol.js";
import { Table } from "./table.js";

/** How long a stream may bring nothing: the server sends a checkpoint at least every 5 seconds. */
export const SILENCE_SECONDS = 15;

export interface WatcherOptions {
  /** Which routes to watch. What is left out stands for all. */
  tenant?: string;
  service?: string;
  env?: string;
  /** Shown to operators who ask which watchers have a revision. */
  name?: string;
  /** Close a stream that has brought nothing for so long. */
  silenceSeconds?: number;
  /** Called after the table was written. */
  onStep?: (step: Step) => void;
  /** Called when a stream has ended, with where the next one goes on: undefined for a snapshot. */
  onInterruption?: (error: Error | undefined, resume: ResumeToken | undefined, pauseSeconds: number) => void;
}

/** Keeps a table current, over all the streams that it takes. */
export class Watcher {
  readonly table = new Table();
  readonly #client: Client;
  readonly #options: WatcherOptions;
  readonly #filter: { tenant: string; service: string; env: string };
  readonly #id = randomUUID();
  readonly #protocol = new Protocol();

  constructor(client: Client, options: WatcherOptions) {
    this.#client = client;
    this.#options = options;
    this.#filter = { tenant: options.tenant ?? "", service: options.service ?? "", env: options.env ?? "" };
  }

  /** Watch until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const error = await this.#follow(signal);
      if (signal.aborted) {
        return;
      }
      const pause = this.#protocol.ended(error, seconds());
      this.#options.onInterruption?.(error, this.#protocol.resume, pause);
      await sleep(pause * 1000, undefined, { signal }).catch(() => {});
    }
  }

  /** Read one stream to its end, and return what it ended with. */
  async #follow(signal: AbortSignal): Promise<Error | undefined> {
    this.#protocol.opened(seconds());
    let stream: ReturnType<Client["watch"]>;
    try {
      stream = this.#client.watch(this.#request());
    } catch (error) {
      return errorOf(error); // there was no token
    }
    const silenceSeconds = this.#options.silenceSeconds ?? SILENCE_SECONDS;
    let silent = false;
    const close = () => stream.cancel();
    const alarm = setTimeout(() => {
      silent = true;
      close();
    }, silenceSeconds * 1000);
    signal.addEventListener("abort", close);
    stream.on("error", () => {}); // it is thrown by the loop; what comes after the loop concerns nobody
    try {
      for await (const event of stream) {
        alarm.refresh();
        const step = this.#protocol.received(event);
        if (step) {
          this.#take(step);
        }
      }
      return undefined;
    } catch (error) {
      if (silent) {
        return new Error(`the stream was silent for ${silenceSeconds} s`);
      }
      return error instanceof ProtocolViolation ? error : errorOf(error);
    } finally {
      clearTimeout(alarm);
      signal.removeEventListener("abort", close);
      close();
    }
  }

  #take(step: Step): void {
    this.table.write(step, this.#protocol.hasTraffic);
    this.#options.onStep?.(step);
    if (step.kind === "confirm" && step.reportProgress) {
      this.#client.reportProgress({ watcherId: this.#id, applied: step.asOf, ...this.#filter });
    }
  }

  #request() {
    return {
      ...this.#filter,
      resume: this.#protocol.resume,
      watcher: { id: this.#id, name: this.#options.name ?? "" },
      traffic: true,
    };
  }
}

function seconds(): number {
  return performance.now() / 1000;
}
