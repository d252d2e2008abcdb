package com.example.pointsman;

import com.example.pointsman.v1.ResumeToken;
import com.example.pointsman.v1.RouteChange;
import com.example.pointsman.v1.SelectResponse;
import com.google.rpc.BadRequest;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Resolves keys, selects versions for callers, and prints the changes of a tenant's routes and traffic. */
public final class Main {

  private static final String USAGE =
      """
      usage: Main resolve [options] KEY...
             Main select [options] TENANT/SERVICE/ENV STICKY_KEY...
             Main watch [options] --tenant TENANT

      options:
        --server TARGET      the gRPC target (POINTSMAN_SERVER; localhost:50051)
        --tls                use TLS with the certificates of the JVM
        --ca-file FILE       certificates to trust instead, in PEM; implies TLS (POINTSMAN_CA_FILE)
        --token-file FILE    a file with the bearer token (POINTSMAN_TOKEN_FILE), or set POINTSMAN_TOKEN
        --timeout SECONDS    the deadline of each call (5)
      options of watch:
        --service SERVICE    only routes of this service
        --env ENV            only routes of this env
        --silence SECONDS    close a stream that has brought nothing for so long (15)
      """;

  private Main() {}

  public static void main(String[] arguments) throws IOException, InterruptedException {
    Arguments given;
    try {
      given = Arguments.of(arguments);
    } catch (IllegalArgumentException problem) {
      System.err.println("error: " + problem.getMessage());
      System.err.print(USAGE);
      System.exit(2);
      return;
    }
    int exit;
    try (PointsmanClient client = new PointsmanClient(given.client())) {
      exit =
          switch (given.command()) {
            case "resolve" -> resolve(client, given.keys());
            case "select" -> select(client, given.client().timeout(), given.keys());
            default -> watch(client, given.watcher());
          };
    }
    System.exit(exit);
  }

  private static int resolve(PointsmanClient client, List<String> keys) throws InterruptedException {
    int exit = 0;
    for (String key : keys) {
      try {
        System.out.println(client.resolve(key).getRoute().getUrl());
      } catch (PointsmanException error) {
        print(error);
        exit = 1;
      }
    }
    return exit;
  }

  /** Prints the version and the URL for each caller, from a table that is kept meanwhile. */
  private static int select(PointsmanClient client, Duration timeout, List<String> words)
      throws InterruptedException, IOException {
    String family = words.get(0);
    String[] parts = (family + "//").split("/", -1);
    CountDownLatch live = new CountDownLatch(1);
    Watcher.Options options = new Watcher.Options(parts[0], parts[1], parts[2], name(), Watcher.SILENCE);
    Watcher watcher = new Watcher(client, options, new Printer(step -> countDown(step, live)));
    Thread watching = new Thread(() -> untilInterrupted(watcher));
    watching.setDaemon(true);
    watching.start();
    live.await(timeout.toNanos(), TimeUnit.NANOSECONDS); // without one, the server is asked for all of them
    int exit = 0;
    for (String stickyKey : words.subList(1, words.size())) {
      try {
        System.out.println(selectOne(client, watcher.table(), family, stickyKey));
      } catch (PointsmanException error) {
        print(error);
        exit = 1;
      } catch (Selection.NothingChosen error) {
        System.err.println("error: " + error.getMessage());
        exit = 1;
      }
    }
    watching.interrupt();
    return exit;
  }

  private static String selectOne(PointsmanClient client, RouteTable table, String family, String stickyKey)
      throws PointsmanException, Selection.NothingChosen, InterruptedException {
    try {
      RouteTable.Selected selected = table.select(family, stickyKey);
      return selected.choice().version() + " " + selected.route().getUrl();
    } catch (Selection.TrafficUnknown unknown) {
      SelectResponse response = client.select(family, stickyKey);
      return response.getChoice().getVersion() + " " + response.getRoute().getUrl();
    }
  }

  private static void countDown(Step step, CountDownLatch live) {
    if (step instanceof Step.Confirm) {
      live.countDown();
    }
  }

  private static void untilInterrupted(Watcher watcher) {
    try {
      watcher.run();
    } catch (InterruptedException stopped) {
      Thread.currentThread().interrupt();
    }
  }

  private static String name() throws IOException {
    return "java-example@" + InetAddress.getLocalHost().getHostName();
  }

  private static void print(PointsmanException error) {
    System.err.println("error: " + error.getMessage());
    new TreeMap<>(error.metadata()).forEach((name, value) -> System.err.printf("  %s: %s%n", name, value));
    for (BadRequest.FieldViolation violation : error.violations()) {
      System.err.printf("  field %s: %s%n", violation.getField(), violation.getDescription());
    }
    error.retryDelay().ifPresent(delay -> System.err.printf("  retry after: %.3f s%n", delay.toNanos() / 1e9));
  }

  private static int watch(PointsmanClient client, Watcher.Options options) {
    Thread watching = Thread.currentThread();
    Runtime.getRuntime().addShutdownHook(new Thread(watching::interrupt));
    try {
      new Watcher(client, options, new Printer(Main::print)).run();
    } catch (InterruptedException stopped) {
      return 0; // by Ctrl-C or SIGTERM
    }
    return 0;
  }

  private static void print(Step step) {
    if (step instanceof Step.Replace replace) {
      long revision = replace.asOf().getRevision();
      System.out.printf("snapshot of %d routes at revision %d%n", replace.routes().size(), revision);
    } else if (step instanceof Step.Apply apply) {
      apply.changes().forEach(change -> System.out.println(text(change)));
    } else if (step instanceof Step.Confirm confirm && confirm.first()) {
      System.out.printf("live at revision %d%n", confirm.asOf().getRevision());
    }
  }

  private static String text(RouteChange change) {
    String kind = change.getKind().name().replace("CHANGE_KIND_", "");
    StringBuilder text = new StringBuilder(change.getRevision() + " " + kind + " " + Keys.text(change.getKey()));
    change
        .getTrafficAfter()
        .getTargetsList()
        .forEach(target -> text.append(' ').append(target.getVersion()).append('=').append(target.getWeight()));
    if (change.hasAfter()) {
      text.append(' ').append(change.getAfter().getUrl());
      text.append(change.getAfter().getActive() ? " active" : " inactive");
    }
    return text.toString();
  }

  /** Prints interruptions, and passes the steps on. */
  private static final class Printer implements Watcher.Listener {
    private final Consumer<Step> then;

    Printer(Consumer<Step> then) {
      this.then = then;
    }

    @Override
    public void onStep(Step step) {
      then.accept(step);
    }

    @Override
    public void onInterruption(Exception error, Optional<ResumeToken> resume, Duration pause) {
      String cause = error == null ? "the server ended the stream" : error.getMessage();
      String next = resume.map(token -> "resuming after revision " + token.getRevision()).orElse("starting over");
      System.err.printf("interrupted: %s; %s in %.3f s%n", cause, next, pause.toNanos() / 1e9);
    }
  }

  /** The command line, and the environment where that says nothing. */
  private record Arguments(String command, List<String> keys, Map<String, String> options) {

    private static final List<String> KNOWN =
        List.of("server", "tls", "ca-file", "token-file", "timeout", "tenant", "service", "env", "silence");

    static Arguments of(String[] arguments) {
      List<String> words = new ArrayList<>();
      Map<String, String> options = new HashMap<>();
      for (int i = 0; i < arguments.length; i++) {
        if (!arguments[i].startsWith("--")) {
          words.add(arguments[i]);
          continue;
        }
        String name = arguments[i].substring(2);
        boolean isSwitch = name.equals("tls");
        if (!KNOWN.contains(name) || (!isSwitch && i + 1 == arguments.length)) {
          throw new IllegalArgumentException("--" + name + " is unknown, or has no value");
        }
        options.put(name, isSwitch ? "true" : arguments[++i]);
      }
      String command = words.isEmpty() ? "" : words.remove(0);
      boolean resolves = command.equals("resolve") && !words.isEmpty();
      boolean selects = command.equals("select") && words.size() > 1;
      boolean watches = command.equals("watch") && words.isEmpty() && options.containsKey("tenant");
      if (!resolves && !selects && !watches) {
        throw new IllegalArgumentException(
            "give resolve with a key, select with a family and a sticky key, or watch with a tenant");
      }
      return new Arguments(command, words, options);
    }

    PointsmanClient.Options client() {
      String ca = option("ca-file", "POINTSMAN_CA_FILE", "");
      return new PointsmanClient.Options(
          option("server", "POINTSMAN_SERVER", "localhost:50051"),
          options.containsKey("tls"),
          ca.isEmpty() ? null : Path.of(ca),
          token(),
          seconds("timeout", Duration.ofSeconds(5)));
    }

    Watcher.Options watcher() throws IOException {
      return new Watcher.Options(
          options.get("tenant"),
          options.getOrDefault("service", ""),
          options.getOrDefault("env", ""),
          name(),
          seconds("silence", Watcher.SILENCE));
    }

    /** The file is read for each call, because another program may renew it. */
    private BearerToken.Source token() {
      String file = option("token-file", "POINTSMAN_TOKEN_FILE", "");
      if (!file.isEmpty()) {
        return () -> Files.readString(Path.of(file)).strip();
      }
      String token = option("", "POINTSMAN_TOKEN", "");
      return token.isEmpty() ? null : () -> token;
    }

    private String option(String name, String variable, String otherwise) {
      String value = options.getOrDefault(name, System.getenv(variable));
      return value == null || value.isEmpty() ? otherwise : value;
    }

    private Duration seconds(String name, Duration otherwise) {
      String value = options.get(name);
      return value == null ? otherwise : Duration.ofMillis(Math.round(Double.parseDouble(value) * 1000));
    }
  }
}
