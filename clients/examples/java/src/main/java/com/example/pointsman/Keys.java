package com.example.pointsman;

import com.example.pointsman.v1.RouteKey;
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

  /** The reverse of {@link #parse}. */
  public static String text(RouteKey key) {
    return String.join("/", key.getTenant(), key.getService(), key.getEnv(), key.getVersion());
  }
}
