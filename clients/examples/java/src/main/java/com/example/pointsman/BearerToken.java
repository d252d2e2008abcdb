package com.example.pointsman;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.IOException;
import java.util.concurrent.Executor;

/** Sends a bearer token with each call. It goes over plaintext too, because a mesh or a proxy may do the TLS. */
public final class BearerToken extends CallCredentials {

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Source source;

  /** Returns the token. It is asked for each call, so that the token can be renewed. */
  @FunctionalInterface
  public interface Source {
    String token() throws IOException;
  }

  public BearerToken(Source source) {
    this.source = source;
  }

  @Override
  public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
    executor.execute(
        () -> {
          try {
            Metadata metadata = new Metadata();
            metadata.put(AUTHORIZATION, "Bearer " + source.token());
            applier.apply(metadata);
          } catch (IOException error) {
            applier.fail(Status.UNAUTHENTICATED.withDescription("no token: " + error).withCause(error));
          }
        });
  }
}
