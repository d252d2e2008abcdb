package com.example.pointsman;

import com.example.pointsman.v1.ResumeToken;
import com.example.pointsman.v1.Route;
import com.example.pointsman.v1.RouteChange;
import com.example.pointsman.v1.Traffic;
import java.time.Duration;
import java.util.List;

/** What to do with the table after an event of a watch. */
public sealed interface Step {

  /** The table is exactly these routes and this traffic: replace all of it at once. */
  record Replace(ResumeToken asOf, List<Route> routes, List<Traffic> traffic) implements Step {}

  /** These changes were made together: apply all of them at once. */
  record Apply(ResumeToken asOf, List<RouteChange> changes) implements Step {}

  /**
   * Nothing is missing up to {@code asOf}, and the server knew so {@code age} ago.
   *
   * @param first it is the first one since the stream began or was reset: the table is live from now on
   */
  record Confirm(ResumeToken asOf, Duration age, boolean reportProgress, boolean first) implements Step {}
}
