import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { type ChannelOptions, type ClientReadableStream, credentials, Metadata, status } from "@grpc/grpc-js";

import { errorOf, PointsmanError } from "./errors.js";
import type { ReportProgressRequest } from "./gen/pointsman/v1/propagation.js";
import type { RouteKey } from "./gen/pointsman/v1/route.js";
import {
  ResolveRequest,
  type ResolveResponse,
  RouteServiceClient,
  SelectRequest,
  type SelectResponse,
} from "./gen/pointsman/v1/route_service.js";
import type { WatchRequest, WatchResponse } from "./gen/pointsman/v1/watch.js";

// Which methods gRPC itself retries, and when. It is the same for clients in every language.
const SERVICE_CONFIG = readFileSync(new URL("../../service-config.json", import.meta.url), "utf8");

/** How many attempts the client makes above those of gRPC. */
const MAX_ATTEMPTS = 4;

const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.service_config": SERVICE_CONFIG,
  // Larger than gRPC's 4 MiB: one change may have two routes with long URLs and many labels.
  "grpc.max_receive_message_length": 128 * 1024 * 1024,
  // gRPC's default pause between two attempts to connect grows to two minutes.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
};

export interface Options {
  /** A gRPC target, such as `localhost:50051` or `dns:///pointsman:50051`. */
  target: string;
  /** Use TLS, and trust the certificates of the system. */
  tls?: boolean;
  /** The certificates to trust instead, in PEM. It implies TLS. */
  caFile?: string | undefined;
  /** Returns the bearer token. It is asked for each call, so that the token can be renewed. */
  token?: (() => string) | undefined;
  /** The deadline of each unary call. */
  timeoutSeconds?: number;
}

type Method<Response> = (
  metadata: Metadata,
  options: { deadline: number },
  done: (error: unknown, response: Response) => void,
) => unknown;

/** Calls the servers of one target. Make one, and share it. */
export class Client {
  readonly #routes: RouteServiceClient;
  readonly #token: (() => string) | undefined;
  readonly #timeoutSeconds: number;

  /** Prepare a client. It connects with the first call. */
  constructor(options: Options) {
    const security =
      options.tls || options.caFile
        ? credentials.createSsl(options.caFile ? readFileSync(options.caFile) : null)
        : credentials.createInsecure();
    this.#routes = new RouteServiceClient(options.target, security, CHANNEL_OPTIONS);
    this.#token = options.token;
    this.#timeoutSeconds = options.timeoutSeconds ?? 5;
  }

  /**
   * Return the live route of a key such as `team-a/payments/prod/v1`. What fails is a PointsmanError.
   *
   * UNAVAILABLE is retried by gRPC, as the service config says. RESOURCE_EXHAUSTED is retried here, because its pause
   * is in the details of the status: RetryInfo.
   */
  async resolve(key: string): Promise<ResolveResponse> {
    const request = ResolveRequest.fromPartial({ key: parseKey(key) });
    return this.#call((metadata, options, done) => this.#routes.resolve(request, metadata, options, done));
  }

  /** Return the route of a family, `tenant/service/env`, that a caller is to use, from the server. See `Table.select`. */
  async select(family: string, stickyKey = ""): Promise<SelectResponse> {
    const request = SelectRequest.fromPartial({ ...parseFamily(family), stickyKey });
    return this.#call((metadata, options, done) => this.#routes.select(request, metadata, options, done));
  }

  async #call<Response>(method: Method<Response>): Promise<Response> {
    const deadline = this.#deadline();
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(method, deadline);
      } catch (error) {
        const failure = errorOf(error);
        const pause = pauseAfter(failure);
        if (attempt === MAX_ATTEMPTS || pause === undefined || Date.now() + pause >= deadline) {
          throw failure;
        }
        await sleep(pause);
      }
    }
  }

  /** Open a stream. It has no deadline. */
  watch(request: WatchRequest): ClientReadableStream<WatchResponse> {
    return this.#routes.watch(request, this.#metadata());
  }

  /** Say which revision a watcher has. A report that fails is asked for again, so its error is dropped. */
  reportProgress(request: ReportProgressRequest): void {
    this.#routes.reportProgress(request, this.#metadata(), { deadline: this.#deadline() }, () => {});
  }

  /** Close the connections. Calls that are under way go on. */
  close(): void {
    this.#routes.close();
  }

  #once<Response>(method: Method<Response>, deadline: number): Promise<Response> {
    const metadata = this.#metadata();
    return new Promise((resolve, reject) => {
      method(metadata, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
    });
  }

  #deadline(): number {
    return Date.now() + this.#timeoutSeconds * 1000;
  }

  /** The metadata of a call. The token goes over plaintext too, because a mesh or a proxy may do the TLS. */
  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token) {
      metadata.set("authorization", `Bearer ${this.#token()}`);
    }
    return metadata;
  }
}

/** Read `tenant/service/env/version`. Which characters a part may have is the server's to say. */
export function parseKey(text: string): RouteKey {
  const [tenant, service, env, version, ...rest] = text.split("/");
  if (tenant === undefined || service === undefined || env === undefined || version === undefined || rest.length > 0) {
    throw new PointsmanError(status.INVALID_ARGUMENT, `"${text}" must be tenant/service/env/version`);
  }
  return { tenant, service, env, version };
}

/** Read `tenant/service/env`. */
export function parseFamily(text: string): Omit<RouteKey, "version"> {
  const [tenant, service, env, ...rest] = text.split("/");
  if (tenant === undefined || service === undefined || env === undefined || rest.length > 0) {
    throw new PointsmanError(status.INVALID_ARGUMENT, `"${text}" must be tenant/service/env`);
  }
  return { tenant, service, env };
}

/** The reverse of `parseKey`, and of `parseFamily` for the key of a change of traffic, which has no version. */
export function keyText(key: RouteKey | undefined): string {
  return key?.version ? `${familyText(key)}/${key.version}` : familyText(key);
}

/** Return `tenant/service/env` of a key. */
export function familyText(key: Omit<RouteKey, "version"> | undefined): string {
  return key ? `${key.tenant}/${key.service}/${key.env}` : "";
}

/** Split the text of a key into its family and its version. */
export function familyOf(key: string): [string, string] {
  const place = key.lastIndexOf("/");
  return [key.slice(0, Math.max(place, 0)), key.slice(place + 1)];
}

/** How many milliseconds to wait before another attempt; undefined where there is to be none. */
function pauseAfter(failure: PointsmanError): number | undefined {
  if (failure.code !== status.RESOURCE_EXHAUSTED || failure.retrySeconds === undefined) {
    return undefined;
  }
  // Never earlier than asked for, and not all callers at once.
  return failure.retrySeconds * 1000 * (1 + Math.random() / 4);
}
