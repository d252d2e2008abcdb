import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { parseArgs } from "node:util";

import { Client, keyText } from "./client.js";
import { errorOf } from "./errors.js";
import { ChangeKind, type RouteChange } from "./gen/pointsman/v1/route.js";
import type { Step } from "./protocol.js";
import { SILENCE_SECONDS, Watcher } from "./watcher.js";

const USAGE = `usage: main.js resolve [options] KEY...
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
  const known = (command === "resolve" && keys.length > 0) || (command === "watch" && values.tenant && keys.length === 0);
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
    return command === "resolve" ? await resolve(client, keys) : await watch(client, values);
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

function changeText({ revision, kind, key, after }: RouteChange): string {
  const text = `${revision} ${(ChangeKind[kind] ?? kind).toString().replace("CHANGE_KIND_", "")} ${keyText(key)}`;
  return after ? `${text} ${after.url} ${after.active ? "active" : "inactive"}` : text;
}

process.exitCode = await main();
