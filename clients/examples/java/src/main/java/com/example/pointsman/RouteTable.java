package com.example.pointsman;

import com.example.pointsman.v1.Route;
import com.example.pointsman.v1.RouteChange;
import com.example.pointsman.v1.Traffic;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/** The routes and the traffic of a watch. Many threads may read it while a {@link Watcher} writes it. */
public final class RouteTable {

  private final ReadWriteLock lock = new ReentrantReadWriteLock();
  private Map<String, Family> families = new HashMap<>();
  private boolean hasTraffic;
  private Long currentAt;

  /** The routes of a tenant, service and env by their versions, and the traffic; null if none is set. */
  private static final class Family {
    private final Map<String, Route> routes = new TreeMap<>();
    private Traffic traffic;

    List<String> active() {
      return routes.entrySet().stream().filter(each -> each.getValue().getActive()).map(Map.Entry::getKey).toList();
    }
  }

  /** A route, and why it was chosen. */
  public record Selected(Route route, Selection.Choice choice) {}

  /** Returns the live route of a key. */
  public Optional<Route> resolve(String key) {
    lock.readLock().lock();
    try {
      return Optional.ofNullable(families.get(Keys.family(key)))
          .map(family -> family.routes.get(Keys.version(key)))
          .filter(Route::getActive);
    } finally {
      lock.readLock().unlock();
    }
  }

  /**
   * Returns the route of a family, {@code tenant/service/env}, for a caller, and why it is that. A sticky key keeps a
   * caller at its version; an empty one stands for a version at random, by the weights.
   */
  public Selected select(String name, String stickyKey) throws Selection.NothingChosen, Selection.TrafficUnknown {
    lock.readLock().lock();
    try {
      if (!hasTraffic) {
        throw new Selection.TrafficUnknown();
      }
      Family family = families.getOrDefault(name, new Family());
      Selection.Choice choice = Selection.choose(name, family.traffic, family.active(), stickyKey);
      return new Selected(family.routes.get(choice.version()), choice);
    } finally {
      lock.readLock().unlock();
    }
  }

  /** Returns the URLs of the live routes, by their keys. */
  public Map<String, String> live() {
    lock.readLock().lock();
    try {
      Map<String, String> live = new TreeMap<>();
      families.forEach(
          (name, family) ->
              family.active().forEach(each -> live.put(name + "/" + each, family.routes.get(each).getUrl())));
      return live;
    } finally {
      lock.readLock().unlock();
    }
  }

  /** Returns the traffic, by its families; empty where the table does not have all of it. */
  public Optional<Map<String, Traffic>> traffic() {
    lock.readLock().lock();
    try {
      Map<String, Traffic> found = new TreeMap<>();
      families.forEach(
          (name, family) -> {
            if (family.traffic != null) {
              found.put(name, family.traffic);
            }
          });
      return hasTraffic ? Optional.of(found) : Optional.empty();
    } finally {
      lock.readLock().unlock();
    }
  }

  /**
   * Returns how long ago the table was known to have everything; empty before the first checkpoint. Decide what to do
   * when it exceeds a bound: call the server, serve what there is, or fail.
   */
  public Optional<Duration> age() {
    lock.readLock().lock();
    try {
      return Optional.ofNullable(currentAt).map(since -> Duration.ofNanos(System.nanoTime() - since));
    } finally {
      lock.readLock().unlock();
    }
  }

  /**
   * Does what an event asks for. Readers see all of it, or nothing.
   *
   * @param hasTraffic whether the table has all traffic from now on: {@link WatchProtocol#hasTraffic}
   */
  public void write(Step step, boolean hasTraffic) {
    lock.writeLock().lock();
    try {
      this.hasTraffic = hasTraffic;
      if (step instanceof Step.Replace replace) {
        families = new HashMap<>();
        replace.routes().forEach(each -> of(Keys.family(each.getKey())).routes.put(each.getKey().getVersion(), each));
        replace.traffic().forEach(each -> of(Keys.family(each)).traffic = each);
      } else if (step instanceof Step.Apply apply) {
        apply.changes().forEach(this::apply);
      } else if (step instanceof Step.Confirm confirm) {
        currentAt = System.nanoTime() - confirm.age().toNanos();
      }
    } finally {
      lock.writeLock().unlock();
    }
  }

  private void apply(RouteChange change) {
    String name = Keys.family(change.getKey());
    String version = change.getKey().getVersion();
    Family family = of(name);
    if (version.isEmpty()) { // a change of traffic
      family.traffic = change.hasTrafficAfter() ? change.getTrafficAfter() : null;
    } else if (change.hasAfter()) {
      family.routes.put(version, change.getAfter());
    } else {
      family.routes.remove(version);
    }
    if (family.routes.isEmpty() && family.traffic == null) {
      families.remove(name);
    }
  }

  /** Returns a family; a new one where the table has none. */
  private Family of(String name) {
    return families.computeIfAbsent(name, missing -> new Family());
  }
}
