package com.example.pointsman;

import com.example.pointsman.v1.RouteKey;
import com.example.pointsman.v1.Traffic;
import io.grpc.Status;

/** The text form of keys: tenant/service/env/version. */
public final class Keys {

  private Keys() {}

  /** Reads a key. Which characters a part may have is the server's to say. */
  public static RouteKey parse(String text) throws PointsmanException {
    String[] parts = text.split("/", -1);
    if (parts.length != 4) {
      throw new PointsmanException(
          Status.INVALID_ARGUMENT.withDescription('"' + text + "\" must be tenant/service/env/version"));
    }
    return RouteKey.newBuilder()
        .setTenant(parts[0])
        .setService(parts[1])
        .setEnv(parts[2])
        .setVersion(parts[3])
        .build();
  }

  /** The reverse of {@link #parse}; the key of a change of traffic has no version. */
  public static String text(RouteKey key) {
    return key.getVersion().isEmpty() ? family(key) : family(key) + "/" + key.getVersion();
  }

  /** Returns tenant/service/env of a key. */
  public static String family(RouteKey key) {
    return String.join("/", key.getTenant(), key.getService(), key.getEnv());
  }

  /** Returns tenant/service/env of traffic. */
  public static String family(Traffic traffic) {
    return String.join("/", traffic.getTenant(), traffic.getService(), traffic.getEnv());
  }

  /** Returns tenant/service/env of the text of a key. */
  public static String family(String key) {
    return key.substring(0, Math.max(0, key.lastIndexOf('/')));
  }

  /** Returns the version of the text of a key. */
  public static String version(String key) {
    return key.substring(key.lastIndexOf('/') + 1);
  }
}
