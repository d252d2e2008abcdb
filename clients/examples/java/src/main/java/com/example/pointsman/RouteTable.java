package com.example.pointsman;

import com.example.pointsman.v1.Route;
import com.example.pointsman.v1.RouteChange;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/** The routes of a watch. Many threads may read it while a {@link Watcher} writes it. */
public final class RouteTable {

  private final ReadWriteLock lock = new ReentrantReadWriteLock();
  private Map<String, Route> routes = new HashMap<>();
  private Long currentAt;

  /** Returns the live route of a key. */
  public Optional<Route> resolve(String key) {
    lock.readLock().lock();
    try {
      return Optional.ofNullable(routes.get(key)).filter(Route::getActive);
    } finally {
      lock.readLock().unlock();
    }
  }

  /** Returns the URLs of the live routes, by their keys. */
  public Map<String, String> live() {
    lock.readLock().lock();
    try {
      Map<String, String> live = new TreeMap<>();
      routes.forEach(
          (key, route) -> {
            if (route.getActive()) {
              live.put(key, route.getUrl());
            }
          });
      return live;
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

  /** Does what an event asks for. Readers see all of it, or nothing. */
  public void write(Step step) {
    lock.writeLock().lock();
    try {
      if (step instanceof Step.Replace replace) {
        Map<String, Route> fresh = new HashMap<>();
        replace.routes().forEach(route -> fresh.put(Keys.text(route.getKey()), route));
        routes = fresh;
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
    String key = Keys.text(change.getKey());
    if (change.hasAfter()) {
      routes.put(key, change.getAfter());
    } else {
      routes.remove(key);
    }
  }
}
