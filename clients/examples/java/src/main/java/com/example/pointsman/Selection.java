package com.example.pointsman;

import com.example.pointsman.v1.Traffic;
import com.example.pointsman.v1.TrafficSlice;
import com.example.pointsman.v1.TrafficTarget;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;

/** Chooses a version by the rule that servers and all clients share: docs/traffic.md has it. */
public final class Selection {

  private static final long POINTS = 10_000;

  /** How many points of a caller are looked at before the word after them decides. */
  private static final int MOST_POINTS = 64;

  private Selection() {}

  /** Why a version was chosen: by the weights, as the first active fallback, or as the only active version. */
  public enum Rule {
    SPLIT,
    FALLBACK,
    ONLY_ACTIVE
  }

  /**
   * What was chosen.
   *
   * @param inactiveVersions the versions before it that are not active, in the order of the rule
   */
  public record Choice(String version, Rule rule, List<String> inactiveVersions) {}

  /** There is nothing to choose: NO_ACTIVE_VERSION, or AMBIGUOUS_VERSION where several are and no traffic is set. */
  public static final class NothingChosen extends Exception {
    private static final long serialVersionUID = 1;

    NothingChosen(String reason) {
      super(reason);
    }
  }

  /** The table does not have all traffic, because the server is older: ask it, by {@link PointsmanClient#select}. */
  public static final class TrafficUnknown extends Exception {
    private static final long serialVersionUID = 1;
  }

  /**
   * Chooses a version of a family, {@code tenant/service/env}. An empty sticky key is replaced by a random text.
   *
   * @param traffic null if none is set
   * @param active the active versions
   */
  public static Choice choose(String family, Traffic traffic, Collection<String> active, String stickyKey)
      throws NothingChosen {
    if (traffic == null) {
      if (active.size() != 1) {
        throw new NothingChosen(active.isEmpty() ? "NO_ACTIVE_VERSION" : "AMBIGUOUS_VERSION");
      }
      return new Choice(active.iterator().next(), Rule.ONLY_ACTIVE, List.of());
    }
    List<TrafficSlice> slices =
        traffic.getSlicesList().stream().filter(slice -> active.contains(slice.getVersion())).toList();
    if (slices.isEmpty()) {
      return fallback(traffic, active);
    }
    Set<String> passed = new LinkedHashSet<>();
    Words row = new Words(family + "\n" + (stickyKey.isEmpty() ? UUID.randomUUID() : stickyKey));
    for (int number = 0; number < MOST_POINTS; number++) {
      String version = owner(traffic.getSlicesList(), Long.remainderUnsigned(row.next(), POINTS));
      if (active.contains(version)) {
        return new Choice(version, Rule.SPLIT, List.copyOf(passed));
      }
      passed.add(version);
    }
    long count = slices.stream().mapToLong(TrafficSlice::getSize).sum();
    String version = owner(slices, Long.remainderUnsigned(row.next(), count));
    return new Choice(version, Rule.SPLIT, new ArrayList<>(passed));
  }

  private static Choice fallback(Traffic traffic, Collection<String> active) throws NothingChosen {
    Set<String> passed = new LinkedHashSet<>();
    for (TrafficTarget target : traffic.getTargetsList()) {
      if (target.getWeight() > 0) {
        passed.add(target.getVersion());
      }
    }
    for (String version : traffic.getFallbacksList()) {
      if (active.contains(version)) {
        return new Choice(version, Rule.FALLBACK, new ArrayList<>(passed));
      }
      passed.add(version);
    }
    throw new NothingChosen("NO_ACTIVE_VERSION");
  }

  /** Returns the version of the slice that a point is in. */
  private static String owner(List<TrafficSlice> slices, long point) {
    long left = point;
    for (TrafficSlice slice : slices) {
      if (left < slice.getSize()) {
        return slice.getVersion();
      }
      left -= slice.getSize();
    }
    throw new IllegalArgumentException("the slices do not divide all points");
  }

  /** The numbers of a caller: the four of the SHA-256 of the text, then those of the text and "\n1", and so on. */
  static final class Words {
    private final String text;
    private ByteBuffer sum = ByteBuffer.allocate(0);
    private int block;

    Words(String text) {
      this.text = text;
    }

    /** Returns the next number, which is unsigned. */
    long next() {
      if (!sum.hasRemaining()) {
        sum = ByteBuffer.wrap(sha256(block == 0 ? text : text + "\n" + block));
        block++;
      }
      return sum.getLong();
    }

    private static byte[] sha256(String text) {
      try {
        return MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
      } catch (NoSuchAlgorithmException error) {
        throw new IllegalStateException("every JVM has SHA-256", error);
      }
    }
  }
}
