package com.example.pointsman;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** How a call failed: its status, and the details that the server sent with it. */
public final class PointsmanException extends Exception {

  private static final long serialVersionUID = 1;

  /** The domain of the reasons of the service; a proxy may have others. */
  private static final String DOMAIN = "pointsman.v1";

  private static final Details NONE =
      new Details(ErrorInfo.getDefaultInstance(), BadRequest.getDefaultInstance(), Optional.empty());

  private final Status.Code code;
  private final transient Details details;

  private record Details(ErrorInfo info, BadRequest badRequest, Optional<Duration> retryDelay) {}

  PointsmanException(Status status) {
    this(status, NONE, null);
  }

  PointsmanException(Status status, Duration retryDelay) {
    this(status, new Details(NONE.info(), NONE.badRequest(), Optional.ofNullable(retryDelay)), null);
  }

  private PointsmanException(Status status, Details details, Throwable cause) {
    super(text(status, details.info().getReason()), cause);
    this.code = status.getCode();
    this.details = details;
  }

  /** Reads the status and the details of an error of gRPC. */
  static PointsmanException of(StatusRuntimeException error) {
    ErrorInfo info = NONE.info();
    BadRequest badRequest = NONE.badRequest();
    Optional<Duration> retryDelay = Optional.empty();
    try {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo found = detail.unpack(ErrorInfo.class);
          info = found.getDomain().equals(DOMAIN) ? found : info;
        } else if (detail.is(BadRequest.class)) {
          badRequest = detail.unpack(BadRequest.class);
        } else if (detail.is(RetryInfo.class)) {
          retryDelay = Optional.of(Durations.of(detail.unpack(RetryInfo.class).getRetryDelay()));
        }
      }
    } catch (InvalidProtocolBufferException malformed) {
      error.addSuppressed(malformed);
    }
    return new PointsmanException(error.getStatus(), new Details(info, badRequest, retryDelay), error);
  }

  public Status.Code code() {
    return code;
  }

  /** What programs decide by, such as ROUTE_NOT_FOUND. Empty where the error is not one of the service. */
  public String reason() {
    return details.info().getReason();
  }

  /** What belongs to the reason, for example the key and the revision as of which it was absent. */
  public Map<String, String> metadata() {
    return details.info().getMetadataMap();
  }

  /** Each malformed field of the request. */
  public List<BadRequest.FieldViolation> violations() {
    return details.badRequest().getFieldViolationsList();
  }

  /** How long to wait before another attempt, where the server says so. */
  public Optional<Duration> retryDelay() {
    return details.retryDelay();
  }

  private static String text(Status status, String reason) {
    String name = reason.isEmpty() ? status.getCode().name() : status.getCode() + " " + reason;
    return status.getDescription() == null ? name : name + ": " + status.getDescription();
  }
}
