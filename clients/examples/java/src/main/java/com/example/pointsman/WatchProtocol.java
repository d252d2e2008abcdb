package com.example.pointsman;

import com.example.pointsman.v1.ChangeSet;
import com.example.pointsman.v1.Checkpoint;
import com.example.pointsman.v1.EndOfSnapshot;
import com.example.pointsman.v1.ResumeToken;
import com.example.pointsman.v1.Route;
import com.example.pointsman.v1.RouteChange;
import com.example.pointsman.v1.SnapshotBatch;
import com.example.pointsman.v1.Traffic;
import com.example.pointsman.v1.WatchResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.DoubleSupplier;

/**
 * The client's side of Watch as a state machine without I/O: events go in, and what to do comes out. The server's
 * documentation has its rules: docs/watch.md.
 *
 * <p>For each stream: {@link #opened}, then {@link #received} for each event, then {@link #ended}, and wait for as long
 * as it returns. Times are those of {@link System#nanoTime}. One thread at a time may use it.
 */
public final class WatchProtocol {

  private static final Duration FIRST_PAUSE = Duration.ofMillis(100);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(5);

  /** For errors that another attempt alone does not mend, such as a missing permission. */
  private static final Duration REFUSED_PAUSE = Duration.ofSeconds(10);

  /** How long a stream must last for the pause after it to be short again. */
  private static final Duration PROVEN = Duration.ofSeconds(5);

  private static final int MOST_DOUBLINGS = 16;

  private final DoubleSupplier random;

  /** What the table has; null before the first snapshot. */
  private ResumeToken token;

  /** Whether the token is void: a snapshot must come. */
  private boolean tokenIsVoid = true;

  /** Whether the stream has traffic: an older server sends none. */
  private boolean sendsTraffic;

  private boolean hasTraffic;
  private List<Route> staged = new ArrayList<>();
  private List<Traffic> stagedTraffic = new ArrayList<>();
  private ResumeToken stagedAsOf;
  private List<RouteChange> partial = new ArrayList<>();
  private boolean live;
  private long openedAt;
  private int failures;

  /** The server sent what the protocol rules out: close the stream. */
  public static final class Violation extends Exception {
    private static final long serialVersionUID = 1;

    Violation(String message) {
      super(message);
    }
  }

  /** {@code random} returns from 0 to 1, to spread the pauses. */
  public WatchProtocol(DoubleSupplier random) {
    this.random = random;
  }

  /** Returns where the next stream goes on; empty stands for a snapshot. */
  public Optional<ResumeToken> resume() {
    return tokenIsVoid ? Optional.empty() : Optional.of(token);
  }

  /** Returns whether the table has all traffic. If not, the server must be asked for what a caller is to use. */
  public boolean hasTraffic() {
    return hasTraffic;
  }

  /** Begins a stream that was asked for with {@link #resume}. */
  public void opened(long now) {
    dropUnfinished();
    live = false;
    sendsTraffic = false;
    openedAt = now;
  }

  /** Takes an event, and returns what to do, if anything. */
  public Optional<Step> received(WatchResponse event) throws Violation {
    if (!event.hasOpened() && !sendsTraffic) {
      hasTraffic = false; // what follows may leave out changes of it
    }
    switch (event.getEventCase()) {
      case OPENED -> begin(event.getOpened().getTraffic());
      case SNAPSHOT -> batch(event.getSnapshot());
      case END_OF_SNAPSHOT -> {
        return Optional.of(endOfSnapshot(event.getEndOfSnapshot()));
      }
      case CHANGES -> {
        return changes(event.getChanges());
      }
      case CHECKPOINT -> {
        return Optional.of(checkpoint(event.getCheckpoint()));
      }
      case RESET -> {
        dropUnfinished();
        tokenIsVoid = true;
        live = false;
      }
      case EVENT_NOT_SET -> {} // an event that this client does not know is ignored
    }
    return Optional.empty();
  }

  /** Ends a stream, by null where the server closed it with OK. Returns how long to pause before the next one. */
  public Duration ended(Exception error, long now) {
    dropUnfinished();
    live = false;
    if (now - openedAt >= PROVEN.toNanos()) {
      failures = 0;
    }
    Duration backoff = FIRST_PAUSE.multipliedBy(1L << Math.min(failures, MOST_DOUBLINGS));
    backoff = spread(Durations.shorter(backoff, LONGEST_PAUSE));
    failures++;
    if (!(error instanceof PointsmanException failure)) {
      return backoff;
    }
    switch (failure.code()) {
      case OUT_OF_RANGE, ABORTED -> { // what follows the token is not kept, or it is of another epoch
        if (!tokenIsVoid) {
          tokenIsVoid = true;
          return spread(FIRST_PAUSE);
        }
      }
      case UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, UNIMPLEMENTED -> {
        return spread(REFUSED_PAUSE);
      }
      default -> {}
    }
    Duration asked = failure.retryDelay().orElse(Duration.ZERO);
    return Durations.longer(backoff, Durations.scaled(asked, 1 + random.getAsDouble() / 2));
  }

  /** Returns from half of the pause to all of it, so that clients that were cut off together come back one by one. */
  private Duration spread(Duration pause) {
    return Durations.scaled(pause, 1 - random.getAsDouble() / 2);
  }

  private void begin(boolean sendsTraffic) throws Violation {
    this.sendsTraffic = sendsTraffic;
    if (sendsTraffic && !hasTraffic && !tokenIsVoid) {
      tokenIsVoid = true;
      throw new Violation("the table has no traffic, and this server sends it: a snapshot is needed");
    }
  }

  private void dropUnfinished() {
    staged = new ArrayList<>();
    stagedTraffic = new ArrayList<>();
    stagedAsOf = null;
    partial = new ArrayList<>();
  }

  private void batch(SnapshotBatch batch) throws Violation {
    checkStaged(batch.getAsOf());
    stagedAsOf = batch.getAsOf();
    staged.addAll(batch.getRoutesList());
    stagedTraffic.addAll(batch.getTrafficList());
  }

  private Step endOfSnapshot(EndOfSnapshot end) throws Violation {
    ResumeToken asOf = end.getAsOf();
    checkStaged(asOf);
    require(staged.size() == end.getRouteCount(), "a snapshot arrived with another number of routes");
    require(stagedTraffic.size() == end.getTrafficCount(), "a snapshot arrived with another number of traffic entries");
    require(
        token == null || !token.getEpoch().equals(asOf.getEpoch()) || asOf.getRevision() >= token.getRevision(),
        "a snapshot is older than the table");
    Step step = new Step.Replace(asOf, staged, stagedTraffic);
    dropUnfinished();
    token = asOf;
    tokenIsVoid = false;
    hasTraffic = sendsTraffic;
    return step;
  }

  private void checkStaged(ResumeToken asOf) throws Violation {
    require(tokenIsVoid, "a snapshot came that was not asked for");
    require(stagedAsOf == null || stagedAsOf.equals(asOf), "parts of a snapshot are as of different revisions");
  }

  private Optional<Step> changes(ChangeSet set) throws Violation {
    require(!tokenIsVoid, "changes came before the end of the snapshot");
    partial.addAll(set.getChangesList());
    if (set.getPartial()) {
      return Optional.empty();
    }
    ResumeToken asOf = set.getAsOf();
    require(asOf.getEpoch().equals(token.getEpoch()), "the epoch changed without a reset");
    long known = token.getRevision();
    List<RouteChange> news = partial.stream().filter(change -> change.getRevision() > known).toList();
    partial = new ArrayList<>();
    if (asOf.getRevision() < known) {
      return Optional.empty(); // the table has all of it
    }
    token = asOf;
    return Optional.of(new Step.Apply(asOf, news));
  }

  private Step checkpoint(Checkpoint checkpoint) throws Violation {
    ResumeToken asOf = checkpoint.getAsOf();
    require(!tokenIsVoid, "a checkpoint came before the end of the snapshot");
    require(partial.isEmpty(), "a change set was not completed");
    require(asOf.getEpoch().equals(token.getEpoch()), "the epoch changed without a reset");
    require(asOf.getRevision() >= token.getRevision(), "a checkpoint is older than the table");
    boolean first = !live;
    token = asOf;
    live = true;
    Duration age = Durations.longer(Durations.of(checkpoint.getAge()), Duration.ZERO);
    return new Step.Confirm(asOf, age, checkpoint.getReportProgress(), first);
  }

  private static void require(boolean condition, String otherwise) throws Violation {
    if (!condition) {
      throw new Violation(otherwise);
    }
  }
}
