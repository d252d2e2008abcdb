import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { parseArgs } from "node:util";

import { Client, keyText, parseFamily } from "./client.js";
import { errorOf } from "./errors.js";
import { ChangeKind, type RouteChange } from "./gen/pointsman/v1/route.js";
import type { Step } from "./protocol.js";
import { TrafficUnknown } from "./table.js";
import { SILENCE_SECONDS, Watcher } from "./watcher.js";

const USAGE = `usage: main.js resolve [options] KEY...
       main.js select [options] TENANT/SERVICE/ENV STICKY_KEY...
       main.js watch [options] --tenant TENANT

options:
  --server TARGET      the gRPC target (POINTSMAN_SERVER; localhost:50051)
  --tls                use TLS with the certificates of the system
  --ca-file FILE       certificates to trust instead, in PEM; implies TLS (POINTSMAN_CA_FILE)
  --token-file FILE    a file with the bearer token (POINTSMAN_TOKEN_FILE), or set POINTSMAN_TOKEN
  --timeout SECONDS    the deadline of each call (5)
options of watch:
  --service SERVICE    only routes of this service
  --env ENV            only routes of this env
  --silence SECONDS    close a stream that has brought nothing for so long (${SILENCE_SECONDS})`;

function options() {
  const env = process.env;
  return parseArgs({
    allowPositionals: true,
    options: {
      server: { type: "string", default: env["POINTSMAN_SERVER"] || "localhost:50051" },
      tls: { type: "boolean", default: false },
      "ca-file": { type: "string", default: env["POINTSMAN_CA_FILE"] ?? "" },
      "token-file": { type: "string", default: env["POINTSMAN_TOKEN_FILE"] ?? "" },
      timeout: { type: "string", default: "5" },
      tenant: { type: "string", default: "" },
      service: { type: "string", default: "" },
      env: { type: "string", default: "" },
      silence: { type: "string", default: String(SILENCE_SECONDS) },
    },
  });
}

type Values = ReturnType<typeof options>["values"];

async function main(): Promise<number> {
  let given: ReturnType<typeof options>;
  try {
    given = options();
  } catch (error) {
    return usage((error as Error).message);
  }
  const { values, positionals } = given;
  const [command, ...keys] = positionals;
  const known =
    (command === "resolve" && keys.length > 0) ||
    (command === "select" && keys.length > 1) ||
    (command === "watch" && values.tenant && keys.length === 0);
  if (!known) {
    return usage();
  }
  const client = new Client({
    target: values.server,
    tls: values.tls,
    caFile: values["ca-file"],
    token: tokenSource(values["token-file"]),
    timeoutSeconds: Number(values.timeout),
  });
  try {
    switch (command) {
      case "resolve":
        return await resolve(client, keys);
      case "select":
        return await select(client, Number(values.timeout), ...(keys as [string, ...string[]]));
      default:
        return await watch(client, values);
    }
  } finally {
    client.close();
  }
}

function usage(problem = ""): number {
  console.error(problem ? `error: ${problem}\n${USAGE}` : USAGE);
  return 2;
}

/** The file is read for each call, because another program may renew it. */
function tokenSource(file: string): (() => string) | undefined {
  if (file) {
    return () => readFileSync(file, "utf8").trim();
  }
  const token = process.env["POINTSMAN_TOKEN"];
  return token ? () => token : undefined;
}

async function resolve(client: Client, keys: string[]): Promise<number> {
  let exit = 0;
  for (const key of keys) {
    try {
      console.log((await client.resolve(key)).route?.url);
    } catch (error) {
      printError(error);
      exit = 1;
    }
  }
  return exit;
}

/** Print the version and the URL for each caller, from a table that is kept meanwhile. */
async function select(client: Client, timeoutSeconds: number, family: string, ...stickyKeys: string[]): Promise<number> {
  const stop = new AbortController();
  let live: () => void = () => {};
  // Without a checkpoint in time, the server is asked for all of them.
  const ready = new Promise<void>((resolve) => (live = resolve));
  const watcher = new Watcher(client, {
    ...parseFamily(family),
    onStep: (step) => step.kind === "confirm" && live(),
  });
  const watching = watcher.run(stop.signal);
  const alarm = setTimeout(live, timeoutSeconds * 1000);
  await ready;
  clearTimeout(alarm);
  let exit = 0;
  for (const stickyKey of stickyKeys) {
    try {
      console.log(await selectOne(client, watcher, family, stickyKey));
    } catch (error) {
      printError(error);
      exit = 1;
    }
  }
  stop.abort();
  await watching;
  return exit;
}

async function selectOne(client: Client, watcher: Watcher, family: string, stickyKey: string): Promise<string> {
  try {
    const { route, choice } = watcher.table.select(family, stickyKey);
    return `${choice.version} ${route.url}`;
  } catch (error) {
    if (!(error instanceof TrafficUnknown)) {
      throw error;
    }
    const { route, choice } = await client.select(family, stickyKey);
    return `${choice?.version} ${route?.url}`;
  }
}

function printError(error: unknown): void {
  const failure = errorOf(error);
  console.error(`error: ${failure.message}`);
  for (const [name, value] of Object.entries(failure.metadata).sort()) {
    console.error(`  ${name}: ${value}`);
  }
  for (const violation of failure.violations) {
    console.error(`  field ${violation.field}: ${violation.description}`);
  }
  if (failure.retrySeconds) {
    console.error(`  retry after: ${failure.retrySeconds.toFixed(3)} s`);
  }
}

async function watch(client: Client, values: Values): Promise<number> {
  const stop = new AbortController();
  process.once("SIGINT", () => stop.abort());
  process.once("SIGTERM", () => stop.abort());
  const watcher = new Watcher(client, {
    tenant: values.tenant,
    service: values.service,
    env: values.env,
    name: `typescript-example@${hostname()}`,
    silenceSeconds: Number(values.silence),
    onStep: printStep,
    onInterruption: (error, resume, pause) => {
      const next = resume ? `resuming after revision ${resume.revision}` : "starting over";
      const cause = error?.message ?? "the server ended the stream";
      console.error(`interrupted: ${cause}; ${next} in ${pause.toFixed(3)} s`);
    },
  });
  await watcher.run(stop.signal);
  return 0;
}

function printStep(step: Step): void {
  switch (step.kind) {
    case "replace":
      console.log(`snapshot of ${step.routes.length} routes at revision ${step.asOf.revision}`);
      break;
    case "apply":
      step.changes.map(changeText).forEach((text) => console.log(text));
      break;
    case "confirm":
      if (step.first) {
        console.log(`live at revision ${step.asOf.revision}`);
      }
      break;
  }
}

function changeText({ revision, kind, key, after, trafficAfter }: RouteChange): string {
  const weights = trafficAfter?.targets.map(({ version, weight }) => ` ${version}=${weight}`) ?? [];
  const what = (ChangeKind[kind] ?? kind).toString().replace("CHANGE_KIND_", "");
  const text = `${revision} ${what} ${keyText(key)}${weights.join("")}`;
  return after ? `${text} ${after.url} ${after.active ? "active" : "inactive"}` : text;
}

process.exitCode = await main();
