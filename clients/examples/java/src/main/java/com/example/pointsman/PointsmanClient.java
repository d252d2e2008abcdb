package com.example.pointsman;

import com.example.pointsman.v1.ReportProgressRequest;
import com.example.pointsman.v1.ReportProgressResponse;
import com.example.pointsman.v1.ResolveRequest;
import com.example.pointsman.v1.ResolveResponse;
import com.example.pointsman.v1.RouteKey;
import com.example.pointsman.v1.RouteServiceGrpc;
import com.example.pointsman.v1.SelectRequest;
import com.example.pointsman.v1.SelectResponse;
import com.example.pointsman.v1.WatchRequest;
import com.example.pointsman.v1.WatchResponse;
import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.ChannelCredentials;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** Calls the servers of one target. Make one, and share it between threads. */
public final class PointsmanClient implements AutoCloseable {

  /** How many attempts the client makes above those of gRPC. */
  private static final int MAX_ATTEMPTS = 4;

  /** Larger than gRPC's 4 MiB: one change may have two routes with long URLs and many labels. */
  private static final int MAX_RECEIVE_BYTES = 128 << 20;

  private final ManagedChannel channel;
  private final RouteServiceGrpc.RouteServiceBlockingStub routes;
  private final RouteServiceGrpc.RouteServiceStub asyncRoutes;
  private final Duration timeout;

  /**
   * How to connect.
   *
   * @param target a gRPC target, such as {@code localhost:50051} or {@code dns:///pointsman:50051}
   * @param tls use TLS, and trust the certificates of the JVM
   * @param caFile the certificates to trust instead, in PEM, which implies TLS; may be null
   * @param token returns the bearer token, and is asked for each call; may be null
   * @param timeout the deadline of each unary call
   */
  public record Options(String target, boolean tls, Path caFile, BearerToken.Source token, Duration timeout) {}

  /** Prepares a client. It connects with the first call. Throws IOException when the CA file cannot be read. */
  public PointsmanClient(Options options) throws IOException {
    channel =
        Grpc.newChannelBuilder(options.target(), channelCredentials(options))
            .defaultServiceConfig(serviceConfig())
            .enableRetry()
            .maxInboundMessageSize(MAX_RECEIVE_BYTES)
            .build();
    BearerToken bearer = options.token() == null ? null : new BearerToken(options.token());
    routes = RouteServiceGrpc.newBlockingStub(channel).withCallCredentials(bearer);
    asyncRoutes = RouteServiceGrpc.newStub(channel).withCallCredentials(bearer);
    timeout = options.timeout();
  }

  /**
   * Returns the live route of a key such as {@code team-a/payments/prod/v1}.
   *
   * <p>UNAVAILABLE is retried by gRPC, as the service config says. RESOURCE_EXHAUSTED is retried here, because its
   * pause is in the details of the status: RetryInfo.
   */
  public ResolveResponse resolve(String key) throws PointsmanException, InterruptedException {
    ResolveRequest request = ResolveRequest.newBuilder().setKey(Keys.parse(key)).build();
    return call(stub -> stub.resolve(request));
  }

  /**
   * Returns the route of a family, {@code tenant/service/env}, that a caller is to use, from the server. See {@link
   * RouteTable#select}.
   */
  public SelectResponse select(String family, String stickyKey) throws PointsmanException, InterruptedException {
    RouteKey key = Keys.parse(family + "/any");
    SelectRequest request =
        SelectRequest.newBuilder()
            .setTenant(key.getTenant())
            .setService(key.getService())
            .setEnv(key.getEnv())
            .setStickyKey(stickyKey)
            .build();
    return call(stub -> stub.select(request));
  }

  private <T> T call(Function<RouteServiceGrpc.RouteServiceBlockingStub, T> method)
      throws PointsmanException, InterruptedException {
    Deadline deadline = Deadline.after(timeout.toNanos(), TimeUnit.NANOSECONDS);
    for (int attempt = 1; ; attempt++) {
      try {
        return method.apply(routes.withDeadline(deadline));
      } catch (StatusRuntimeException error) {
        PointsmanException failure = PointsmanException.of(error);
        if (attempt == MAX_ATTEMPTS || !pauseFor(failure, deadline)) {
          throw failure;
        }
      }
    }
  }

  /** Opens a stream, which ends with the current {@link io.grpc.Context}. It has no deadline. */
  Iterator<WatchResponse> watch(WatchRequest request) {
    // gRPC's pause between two attempts to connect grows to two minutes; the caller's own pauses are shorter.
    channel.resetConnectBackoff();
    return routes.watch(request);
  }

  /** Says which revision a watcher has. A report that fails is asked for again, so its error is dropped. */
  void reportProgress(ReportProgressRequest request) {
    asyncRoutes.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS).reportProgress(request, new Ignored());
  }

  /** Closes the connections. Calls that are under way fail. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** Waits for as long as a server that is overloaded asks for. Returns whether another attempt makes sense. */
  private static boolean pauseFor(PointsmanException failure, Deadline deadline) throws InterruptedException {
    if (failure.code() != Status.Code.RESOURCE_EXHAUSTED || failure.retryDelay().isEmpty()) {
      return false;
    }
    // Never earlier than asked for, and not all callers at once.
    double spread = 1 + ThreadLocalRandom.current().nextDouble() / 4;
    long nanos = (long) (failure.retryDelay().get().toNanos() * spread);
    if (deadline.timeRemaining(TimeUnit.NANOSECONDS) <= nanos) {
      return false;
    }
    TimeUnit.NANOSECONDS.sleep(nanos);
    return true;
  }

  private static ChannelCredentials channelCredentials(Options options) throws IOException {
    if (options.caFile() != null) {
      return TlsChannelCredentials.newBuilder().trustManager(options.caFile().toFile()).build();
    }
    return options.tls() ? TlsChannelCredentials.create() : InsecureChannelCredentials.create();
  }

  /** Returns which methods gRPC itself retries, and when. It is the same for clients in every language. */
  private static Map<String, ?> serviceConfig() {
    var resource = PointsmanClient.class.getResourceAsStream("/service-config.json");
    try (var reader = new InputStreamReader(Objects.requireNonNull(resource), StandardCharsets.UTF_8)) {
      return new Gson().fromJson(reader, new TypeToken<Map<String, ?>>() {}.getType());
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static final class Ignored implements StreamObserver<ReportProgressResponse> {
    @Override
    public void onNext(ReportProgressResponse response) {}

    @Override
    public void onError(Throwable error) {}

    @Override
    public void onCompleted() {}
  }
}
