package com.example.pointsman;

import com.example.pointsman.v1.ReportProgressRequest;
import com.example.pointsman.v1.ResumeToken;
import com.example.pointsman.v1.WatchRequest;
import com.example.pointsman.v1.WatchResponse;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Iterator;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Keeps a table current, over all the streams that it takes. */
public final class Watcher {

  /** How long a stream may bring nothing: the server sends a checkpoint at least every 5 seconds. */
  public static final Duration SILENCE = Duration.ofSeconds(15);

  private final PointsmanClient client;
  private final Options options;
  private final Listener listener;
  private final RouteTable table = new RouteTable();
  private final String id = UUID.randomUUID().toString();
  private final WatchProtocol protocol = new WatchProtocol(() -> ThreadLocalRandom.current().nextDouble());

  /**
   * What to watch.
   *
   * @param tenant only routes of this tenant; empty stands for all, as of the other two
   * @param name shown to operators who ask which watchers have a revision
   * @param silence close a stream that has brought nothing for so long
   */
  public record Options(String tenant, String service, String env, String name, Duration silence) {}

  /** Is called by the thread that watches: a slow method delays the events. */
  public interface Listener {
    /** The table was written. */
    void onStep(Step step);

    /** A stream has ended, by an error unless that is null. The next one goes on at {@code resume}. */
    void onInterruption(Exception error, Optional<ResumeToken> resume, Duration pause);
  }

  public Watcher(PointsmanClient client, Options options, Listener listener) {
    this.client = client;
    this.options = options;
    this.listener = listener;
  }

  /** Returns the table, which may be read at any time. */
  public RouteTable table() {
    return table;
  }

  /** Watches until the thread is interrupted. */
  public void run() throws InterruptedException {
    ScheduledExecutorService alarms = Executors.newSingleThreadScheduledExecutor();
    try {
      while (true) {
        Exception error = follow(alarms);
        if (Thread.interrupted()) {
          throw new InterruptedException();
        }
        Duration pause = protocol.ended(error, System.nanoTime());
        listener.onInterruption(error, protocol.resume(), pause);
        TimeUnit.NANOSECONDS.sleep(pause.toNanos());
      }
    } finally {
      alarms.shutdownNow();
    }
  }

  /** Reads one stream to its end, and returns what it ended with; null stands for OK. */
  private Exception follow(ScheduledExecutorService alarms) {
    protocol.opened(System.nanoTime());
    // The stream ends with the context, for whatever reason that is closed.
    try (Context.CancellableContext context = Context.current().withCancellation()) {
      Context previous = context.attach();
      ScheduledFuture<?> alarm = alarm(alarms, context);
      try {
        Iterator<WatchResponse> stream = client.watch(request());
        while (stream.hasNext()) {
          WatchResponse event = stream.next();
          alarm.cancel(false);
          alarm = alarm(alarms, context);
          protocol.received(event).ifPresent(this::take);
        }
        return null;
      } catch (StatusRuntimeException error) {
        return context.cancellationCause() instanceof Silent silent ? silent : PointsmanException.of(error);
      } catch (WatchProtocol.Violation violation) {
        return violation;
      } finally {
        alarm.cancel(false);
        context.detach(previous);
      }
    }
  }

  private ScheduledFuture<?> alarm(ScheduledExecutorService alarms, Context.CancellableContext context) {
    Runnable close = () -> context.cancel(new Silent(options.silence()));
    return alarms.schedule(close, options.silence().toMillis(), TimeUnit.MILLISECONDS);
  }

  private void take(Step step) {
    table.write(step, protocol.hasTraffic());
    listener.onStep(step);
    if (step instanceof Step.Confirm confirm && confirm.reportProgress()) {
      ReportProgressRequest report =
          ReportProgressRequest.newBuilder()
              .setWatcherId(id)
              .setApplied(confirm.asOf())
              .setTenant(options.tenant())
              .setService(options.service())
              .setEnv(options.env())
              .build();
      // In a context of its own: the report outlives a stream that ends meanwhile.
      Context.ROOT.run(() -> client.reportProgress(report));
    }
  }

  private WatchRequest request() {
    WatchRequest.Builder request =
        WatchRequest.newBuilder()
            .setTenant(options.tenant())
            .setService(options.service())
            .setEnv(options.env())
            .setTraffic(true);
    request.getWatcherBuilder().setId(id).setName(options.name());
    protocol.resume().ifPresent(request::setResume);
    return request.build();
  }

  private static final class Silent extends Exception {
    private static final long serialVersionUID = 1;

    Silent(Duration silence) {
      super("the stream was silent for " + silence.toMillis() / 1000.0 + " s");
    }
  }
}
