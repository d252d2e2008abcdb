import { type ServiceError, status } from "@grpc/grpc-js";

import type { Duration } from "./gen/google/protobuf/duration.js";
import { BadRequest, type BadRequest_FieldViolation, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** The domain of the reasons of the service; a proxy may have others. */
const DOMAIN = "pointsman.v1";

/** How a call failed: its status, and the details that the server sent with it. */
export class PointsmanError extends Error {
  override readonly name = "PointsmanError";

  constructor(
    readonly code: status,
    readonly details: string,
    /** What programs decide by, such as ROUTE_NOT_FOUND. Empty where the error is not one of the service. */
    readonly reason = "",
    /** What belongs to the reason, for example the key and the revision as of which it was absent. */
    readonly metadata: Readonly<Record<string, string>> = {},
    /** Each malformed field of the request. */
    readonly violations: readonly BadRequest_FieldViolation[] = [],
    /** How long to wait before another attempt, where the server says so. */
    readonly retrySeconds: number | undefined = undefined,
    options?: ErrorOptions,
  ) {
    super(`${status[code]}${reason && ` ${reason}`}: ${details}`, options);
  }
}

/** Read the status and the details of an error of gRPC. Return an error of another kind as UNKNOWN. */
export function errorOf(error: unknown): PointsmanError {
  if (error instanceof PointsmanError) {
    return error;
  }
  if (!isServiceError(error)) {
    const text = error instanceof Error ? error.message : String(error);
    return new PointsmanError(status.UNKNOWN, text, "", {}, [], undefined, { cause: error });
  }
  let info = ErrorInfo.fromPartial({});
  let violations: BadRequest_FieldViolation[] = [];
  let retrySeconds: number | undefined;
  for (const detail of detailsOf(error)) {
    switch (detail.typeUrl) {
      case "type.googleapis.com/google.rpc.ErrorInfo": {
        const found = ErrorInfo.decode(detail.value);
        info = found.domain === DOMAIN ? found : info;
        break;
      }
      case "type.googleapis.com/google.rpc.BadRequest":
        violations = BadRequest.decode(detail.value).fieldViolations;
        break;
      case "type.googleapis.com/google.rpc.RetryInfo":
        retrySeconds = secondsOf(RetryInfo.decode(detail.value).retryDelay);
        break;
    }
  }
  return new PointsmanError(error.code, error.details, info.reason, info.metadata, violations, retrySeconds, {
    cause: error,
  });
}

export function secondsOf(duration: Duration | undefined): number {
  return duration ? Number(duration.seconds) + duration.nanos / 1e9 : 0;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/** grpc-js leaves the details to its callers: they are a google.rpc.Status in the trailers. */
function detailsOf(error: ServiceError): Status["details"] {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  return Buffer.isBuffer(packed) ? Status.decode(packed).details : [];
}
